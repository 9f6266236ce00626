"""Select rows of a rollout's batch, and join the rows of several rollouts.

A batch is the dict that TRL's `_generate_and_score_completions` returns: tensors with a row per response, padded to
the longest prompt (left) and response (right), pixels flat over images (keys in trl_seams.py).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl.trainer.utils import split_pixel_values_by_grid, unsplit_pixel_values_by_grid

from rlfr_vlm.trainer.trl_seams import IMAGE_KEYS, PROMPT_KEYS, SEQUENCE_KEYS, Batch


def select_rows(batch: Batch, rows: Sequence[int]) -> Batch:
    """Return the rows with these indices, images included."""
    split = split_pixel_values_by_grid(batch)
    selected: Batch = {}
    for key, value in split.items():
        if isinstance(value, list):
            selected[key] = [value[row] for row in rows]
        elif isinstance(value, Tensor) and value.ndim > 0:
            selected[key] = value[list(rows)]
        else:
            selected[key] = value
    return unsplit_pixel_values_by_grid(_without_empty_images(selected))


def join_batches(batches: Sequence[Batch], pad_token_id: int) -> Batch:
    """One batch of all rows in their order, padded to the longest prompt and response among them."""
    splits = [_with_image_keys(split_pixel_values_by_grid(batch), batches) for batch in batches]
    sizes = [(batch["prompt_ids"].shape[1], batch["completion_ids"].shape[1]) for batch in batches]
    widest = max(p for p, _ in sizes), max(t for _, t in sizes)
    joined: Batch = {}
    for key in {key: None for split in splits for key in split}:
        values: list[Any] = [split.get(key) for split in splits]  # tensors or lists, of the same type in all batches
        if key in IMAGE_KEYS:
            joined[key] = _same_size([row for value in values for row in _as_rows(value)])
        elif isinstance(values[0], list):
            joined[key] = [row for value in values for row in value or []]
        elif isinstance(values[0], Tensor) and values[0].ndim > 0:
            fill = pad_token_id if key in ("prompt_ids", "completion_ids") else int(key == "tool_mask")
            joined[key] = torch.cat(
                [_widen(key, value, size, widest, fill) for value, size in zip(values, sizes, strict=True)]
            )
        else:
            joined[key] = values[0]
    return unsplit_pixel_values_by_grid(_without_empty_images(joined))


def _without_empty_images(split: Batch) -> Batch:
    """Drop the image keys if no selected row has an image: an empty pixel_values crashes the vision tower."""
    pixels = split.get("pixel_values")
    if isinstance(pixels, list) and not any(len(value) for value in pixels):
        return {key: value for key, value in split.items() if key not in IMAGE_KEYS}
    return split


def _with_image_keys(split: Batch, batches: Sequence[Batch]) -> Batch:
    """Add what another batch has of images, to a batch of text rows empty."""
    has_tiles = any("num_tiles" in batch for batch in batches)
    if has_tiles and "num_tiles" not in split:  # InternVL: one tile for each image, none for a row of text
        split = {**split, "num_tiles": list(split.get("num_images", [0] * split["prompt_ids"].shape[0]))}
    example = next((batch for batch in batches if "pixel_values" in batch), None)
    if example is None or "pixel_values" in split:
        return split
    rows = split["prompt_ids"].shape[0]
    sequence = torch.cat([split["prompt_ids"], split["completion_ids"]], dim=1)
    filled: Batch = {key: torch.zeros_like(sequence) for key in SEQUENCE_KEYS if key in example and key not in split}
    images = {key: example[key] for key in IMAGE_KEYS if key in example}
    if "pixel_attention_mask" in images and "spatial_shapes" not in images:  # a row of images for each prompt
        return {**split, **filled, **{key: [torch.zeros_like(images[key][:1])] * rows for key in images},
                "num_images": [1] * rows}  # fmt: skip
    return {**split, **filled, **{key: [images[key][:0]] * rows for key in images}, "num_images": [0] * rows}


def _as_rows(value: Tensor | list[Tensor]) -> Sequence[Tensor]:
    """Images of each row; TRL leaves masks with one row for each prompt in one tensor."""
    return value if isinstance(value, list) else value.split(1)


def _same_size(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Pad tensors with zeros to the largest size in every axis but the first."""
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [(0, most - size) for most, size in zip(largest, tensor.shape[1:], strict=True)]
        padded.append(pad(tensor, [number for pair in reversed(missing) for number in pair]))
    return padded


def _widen(key: str, value: Tensor, size: tuple[int, int], widest: tuple[int, int], fill: int) -> Tensor:
    """Pad a tensor of rows from the prompt and response widths `size` to the widths `widest`."""
    left, right = widest[0] - size[0], widest[1] - size[1]
    if value.ndim < 2:
        return value
    if key in PROMPT_KEYS:
        return pad(value, (left, 0), value=fill)
    if key in SEQUENCE_KEYS:
        return pad(value, (left, right), value=fill)
    return pad(value, (0, right), value=fill) if value.shape[1] == size[1] else value
