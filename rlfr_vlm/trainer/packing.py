"""Sort rows by length into micro-batches, and trim each micro-batch to its longest row: less padding."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlfr_vlm.trainer.batches import join_batches, select_rows
from rlfr_vlm.trainer.trl_seams import IMAGE_KEYS, PROMPT_KEYS, SEQUENCE_KEYS, Batch


def pack_by_length(batches: Sequence[Batch], per_update: int, pad_token_id: int) -> list[Batch]:
    """Return the same rows in the same number of micro-batches, sorted by length within each update.

    An update has the same rows as before, so losses that are means over rows (grpo) or over all tokens of an update
    (dapo) change only by rounding.

    Args:
        batches: micro-batches of a rollout, in order; equally many rows in each.
        per_update: number of micro-batches of one update.
    """
    packed: list[Batch] = []
    for first in range(0, len(batches), per_update):
        update = batches[first : first + per_update]
        joined = join_batches(update, pad_token_id)
        lengths = joined["prompt_mask"].sum(dim=1) + joined["completion_mask"].sum(dim=1)
        order = torch.argsort(lengths, stable=True).tolist()
        rows = len(order) // len(update)
        packed += [trim(select_rows(joined, order[start : start + rows])) for start in range(0, len(order), rows)]
    return packed


def trim(batch: Batch) -> Batch:
    """Remove the columns that are padding in every row: of prompts on the left, of responses on the right."""
    prompt, response = batch["prompt_mask"], batch["completion_mask"]
    left = prompt.shape[1] - max(int(prompt.sum(dim=1).max()), 1)
    right = response.shape[1] - max(int(response.sum(dim=1).max()), 1)
    return {key: _cut(key, value, left, right, response.shape) for key, value in batch.items()}


def _cut(key: str, value: object, left: int, right: int, shape: torch.Size) -> object:
    if not isinstance(value, Tensor) or value.dim() != 2 or key in IMAGE_KEYS:
        return value
    if key in PROMPT_KEYS:
        return value[:, left:]
    if key in SEQUENCE_KEYS:
        return value[:, left : value.shape[1] - right]
    return value[:, : value.shape[1] - right] if value.shape == shape else value


def padding_share(batches: Sequence[Batch]) -> float:
    """Share of the positions of micro-batches that are padding."""
    masks = [batch[key] for batch in batches for key in ("prompt_mask", "completion_mask")]
    return 1.0 - sum(int(mask.sum()) for mask in masks) / max(sum(mask.numel() for mask in masks), 1)
