"""Images and videos of each row, handed to forward passes by a hook.

TRL's log-prob pass slices the images of a batch for each chunk of rows, and takes no videos (read in TRL 1.16.0). So
the rows of a rollout with videos carry their tensors themselves, in the layout of Qwen2-VL: patches of all images or
videos one after the other, and a grid (time, height, width) of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rlfr_vlm.models.family import ModelFamily
from rlfr_vlm.models.towers import unwrap

RowMedia: TypeAlias = Mapping[str, Tensor]  # tensors of one row; empty for a row of text

PATCHES = {"pixel_values": "image_grid_thw", "pixel_values_videos": "video_grid_thw"}  # and the key of their grids
SECONDS = "second_per_grid_ts"  # (videos,) of Qwen2.5-VL
KEYS = (*PATCHES, *PATCHES.values(), SECONDS)


def media_of_rows(features: Mapping[str, Tensor], images: Sequence[int], videos: Sequence[int]) -> list[RowMedia]:
    """Split a processor's output into the tensors of each row.

    Args:
        features: of the processor, for all rows.
        images, videos: numbers of each row.
    """
    rows: list[dict[str, Tensor]] = [{} for _ in images]
    for (patches, grids), numbers in zip(PATCHES.items(), (images, videos), strict=True):
        if patches not in features:
            continue
        sizes = features[grids].prod(dim=1).tolist()
        first_patch = first = 0
        for row, number in zip(rows, numbers, strict=True):
            last, last_patch = first + number, first_patch + sum(sizes[first : first + number])
            if number:
                row[patches] = features[patches][first_patch:last_patch]
                row[grids] = features[grids][first:last]
                if grids == "video_grid_thw" and SECONDS in features:
                    row[SECONDS] = features[SECONDS][first:last]
            first, first_patch = last, last_patch
    return list(rows)


def joined_media(rows: Sequence[RowMedia | None]) -> dict[str, Tensor]:
    """Put the tensors of rows together as a processor returns them; empty if no row has any."""
    with_media = [row for row in rows if row]
    names = [name for name in KEYS if any(name in row for row in with_media)]
    return {name: torch.cat([row[name] for row in with_media if name in row]) for name in names}


def token_types(family: ModelFamily, policy: nn.Module, input_ids: Tensor) -> Tensor:
    """Type of each token, as the policy's positions need it: 0 text, 1 image, 2 video."""
    config = unwrap(policy).config
    types = torch.zeros_like(input_ids)
    types[input_ids == family.image_token_id(config)] = 1
    types[input_ids == family.video_token_id(config)] = 2
    return types


@contextmanager
def with_row_media(policy: nn.Module, family: ModelFamily, media: Sequence[RowMedia | None] | None) -> Iterator[None]:
    """Add images and videos to forward passes inside the context, which take the rows of a batch in order.

    Args:
        policy: the model that runs.
        media: tensors of each row of the batch; None, or rows without any, add nothing.
    """
    if media is None or not any(media):
        yield
        return
    start = 0

    def add_media(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        nonlocal start
        input_ids = kwargs["input_ids"]
        chunk = joined_media(media[start : start + len(input_ids)])
        start += len(input_ids)
        if chunk:
            chunk = {name: tensor.to(input_ids.device) for name, tensor in chunk.items()}
            chunk["mm_token_type_ids"] = token_types(family, policy, input_ids)
        return args, {**kwargs, **chunk}

    hook = unwrap(policy).base_model.register_forward_pre_hook(add_media, with_kwargs=True)  # type: ignore
    try:
        yield
    finally:
        hook.remove()
