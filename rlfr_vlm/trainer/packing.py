"""Sort the rows of a rollout into micro-batches: by length, for less padding, or by prompt, so that it is shared."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rlfr_vlm.models.shared_prefix.prompts import RowImages, rows_by_prompt
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
        order = torch.argsort(_lengths(joined), stable=True).tolist()
        packed += _micro_batches(joined, order, len(update))
    return packed


def pack_by_prompt(
    batches: Sequence[Batch], per_update: int, pad_token_id: int, *, by_length: bool = False
) -> list[Batch]:
    """Return the same rows in the same number of micro-batches, those with the same prompt one after the other.

    Prompts stay in the order of their first rows. With one update per rollout, it has the same rows as before; with
    several, the responses to a prompt come into the same update, but for those at its ends. What is normalised within
    a micro-batch (bnpo, quantiles of entropy) changes with its rows.

    Args:
        batches: micro-batches of a rollout, in order; equally many rows in each.
        per_update: number of micro-batches of one update.
        by_length: sort the prompts of each update by the length of their longest row.
    """
    joined = join_batches(batches, pad_token_id)
    groups = rows_by_prompt(
        joined["prompt_ids"], joined["prompt_mask"], RowImages.of_batch(joined, len(joined["prompt_ids"]))
    )
    order = [(number, row) for number, group in enumerate(groups) for row in group]
    if by_length:
        lengths = _lengths(joined).tolist()
        longest = [max(lengths[row] for row in group) for group in groups]
        size = len(order) // len(batches) * per_update
        updates = [order[start : start + size] for start in range(0, len(order), size)]
        order = [pair for update in updates for pair in sorted(update, key=lambda pair: (longest[pair[0]], pair[0]))]
    return _micro_batches(joined, [row for _, row in order], len(batches))


def _lengths(batch: Batch) -> Tensor:
    """(B,) tokens of each row."""
    return batch["prompt_mask"].sum(dim=1) + batch["completion_mask"].sum(dim=1)


def _micro_batches(batch: Batch, order: Sequence[int], number: int) -> list[Batch]:
    """Split the rows of a batch in this order into micro-batches, trimmed to their longest rows."""
    rows = len(order) // number
    return [trim(select_rows(batch, order[start : start + rows])) for start in range(0, len(order), rows)]


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
