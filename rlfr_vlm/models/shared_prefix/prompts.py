"""Find the rows of a batch that have the same prompt: equal tokens and equal pixels.

The order of the rows says nothing, since refilled groups and packing by length move them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class RowImages:
    """Images of the rows of a batch, in the layout of Qwen2-VL.

    Attributes:
        pixel_values: patches of all images, one after the other.
        image_grid_thw: (images, 3) patches of each image in time, height and width.
        numbers: images of each row.
    """

    pixel_values: Tensor
    image_grid_thw: Tensor
    numbers: Sequence[int]

    @classmethod
    def of_batch(cls, batch: Mapping[str, object], rows: int) -> "RowImages | None":
        """Images of a batch with the keys of TRL; None without any."""
        pixels, grids, numbers = (batch.get(key) for key in ("pixel_values", "image_grid_thw", "num_images"))
        if not isinstance(pixels, Tensor) or not isinstance(grids, Tensor) or not len(pixels):
            return None
        assert isinstance(numbers, Sequence) and len(numbers) == rows
        return cls(pixels, grids, numbers)

    @classmethod
    def by_tokens(
        cls, is_image: Tensor, config: "PreTrainedConfig", inputs: Mapping[str, Tensor]
    ) -> "RowImages | None":
        """Images of rows whose numbers follow from their image tokens; None without any.

        Args:
            is_image: (B, P) bool, True at image tokens.
            config: of the policy.
            inputs: pixel_values and image_grid_thw of all rows.
        """
        if "pixel_values" not in inputs:
            return None
        grids = inputs["image_grid_thw"]
        ends = (grids.prod(dim=1) // config.vision_config.spatial_merge_size**2).cumsum(0)
        rows = is_image.sum(dim=1).cumsum(0).to(ends.device)
        upto = torch.searchsorted(ends, rows, right=True).tolist()
        return cls(inputs["pixel_values"], grids, [b - a for a, b in pairwise([0, *upto])])

    def as_batch(self) -> dict[str, object]:
        """The images under the keys of TRL."""
        return {
            "pixel_values": self.pixel_values,
            "image_grid_thw": self.image_grid_thw,
            "num_images": list(self.numbers),
        }

    def chunk(self, first: int, rows: int) -> "RowImages | None":
        """Images of `rows` rows from row `first` on; None without any."""
        numbers = self.numbers[first : first + rows]
        start, patches = sum(self.numbers[:first]), self._patch_starts
        stop = start + sum(numbers)
        if start == stop:
            return None
        return RowImages(self.pixel_values[patches[start] : patches[stop]], self.image_grid_thw[start:stop], numbers)

    def of_rows(self, rows: Sequence[int]) -> "RowImages | None":
        """Images of these rows, in this order; None without any."""
        chunks = [chunk for row in rows if (chunk := self.chunk(row, 1)) is not None]
        if not chunks:
            return None
        if len(chunks) == 1:  # without a copy
            return RowImages(chunks[0].pixel_values, chunks[0].image_grid_thw, [self.numbers[row] for row in rows])
        return RowImages(
            torch.cat([chunk.pixel_values for chunk in chunks]),
            torch.cat([chunk.image_grid_thw for chunk in chunks]),
            [self.numbers[row] for row in rows],
        )

    @cached_property
    def _patch_starts(self) -> list[int]:
        return [0, *self.image_grid_thw.prod(dim=1).cumsum(0).tolist()]


def rows_by_prompt(prompt_ids: Tensor, prompt_mask: Tensor, images: RowImages | None = None) -> list[list[int]]:
    """Numbers of the rows that share a prompt, in the order of their first rows.

    Args:
        prompt_ids, prompt_mask: (B, P).
        images: of the rows.
    """
    rows_of_tokens: dict[tuple[int, ...], list[list[int]]] = {}
    groups: list[list[int]] = []
    chunks = [images and images.chunk(row, 1) for row in range(len(prompt_ids))]
    for row, (ids, mask) in enumerate(zip(prompt_ids.tolist(), prompt_mask.tolist(), strict=True)):
        alike = rows_of_tokens.setdefault(tuple(token for token, real in zip(ids, mask, strict=True) if real), [])
        group = next((group for group in alike if _same_images(chunks[group[0]], chunks[row])), None)
        if group is None:
            group = []
            groups.append(group)
            alike.append(group)
        group.append(row)
    return groups


def _same_images(one: RowImages | None, other: RowImages | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.image_grid_thw, other.image_grid_thw) and torch.equal(one.pixel_values, other.pixel_values)
