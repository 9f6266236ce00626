"""Dynamic sampling: replace the groups of a rollout that teach nothing with groups of new prompts."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from rlfr_vlm.data.rows import Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.batches import join_batches, select_rows
from rlfr_vlm.trainer.groups import GroupSelector
from rlfr_vlm.trainer.trl_seams import Batch, response_mask
from rlfr_vlm.trainer.video_prompts import keep_media_by_row

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset


def refill_groups(
    batch: Batch,
    roll_out: Callable[[list[Row]], Batch],
    *,
    rounds: int,
    selector: GroupSelector,
    dataset: "Dataset",
    accelerator: "Accelerator",
    pad_token_id: int,
) -> tuple[Batch, dict[str, float]]:
    """Roll out new prompts until no group is dropped, or for at most `rounds` rounds.

    All ranks do the same number of rollouts of the same size. A dropped group that cannot be replaced stays in the
    batch, without advantage.

    Args:
        batch: the first rollout, with `keep` (B,).
        roll_out: generates, scores and shapes rows.
        rounds: further rollouts at most.
        selector: gives row numbers of new prompts.
        dataset: training rows.
        accelerator: gives rank and reductions.
        pad_token_id: of the tokenizer.

    Returns:
        The batch and metrics: rounds used, and the share of groups of this rank that is still dropped.

    Raises:
        UserError: a rank has a part of a group.
    """
    size, rows = selector.group_size, len(batch["keep"])
    if rows % size:
        raise UserError(
            f"refill_rounds needs whole groups on each process, but {rows} responses a process are no multiple of "
            f"num_generations {size}. Raise per_device_train_batch_size or steps_per_generation, or lower "
            "num_generations."
        )
    used = 0
    for _ in range(rounds):
        dropped = _groups(batch, size, keep=False)
        needed = int(accelerator.gather(torch.tensor([len(dropped)], device=accelerator.device)).max())
        if needed == 0:
            break
        used += 1
        numbers = selector.new_prompts(needed, accelerator.process_index, accelerator.num_processes)
        prompts = dataset.__getitems__(list(numbers))  # one call, so that all rows have the same columns
        fresh = roll_out([row for row in prompts for _ in range(size)])
        batch = _replace(batch, fresh, dropped, _groups(fresh, size, keep=True), size, pad_token_id)
    still_dropped = len(_groups(batch, size, keep=False)) / (rows // size)
    batch["num_items_in_batch"] = accelerator.gather(response_mask(batch).sum()).sum()
    return batch, {"groups/refill_rounds": float(used), "groups/not_refilled": still_dropped}


def _groups(batch: Batch, size: int, *, keep: bool) -> list[int]:
    """Return the numbers of the groups that are kept, or of those that are dropped."""
    return [number for number, is_kept in enumerate(batch["keep"][::size].tolist()) if bool(is_kept) is keep]


def _replace(batch: Batch, fresh: Batch, dropped: list[int], good: list[int], size: int, pad_token_id: int) -> Batch:
    """Replace dropped groups of a batch by kept groups of a new rollout.

    Args:
        fresh: the new rollout.
        dropped, good: numbers of the dropped groups of `batch` and of the kept groups of `fresh`.
        size: responses of a group.
    """
    pairs = dict(zip(dropped, good, strict=False))
    if not pairs:
        return batch
    rows = len(batch["keep"])
    if batch["advantages"].dim() != fresh["advantages"].dim():  # only one of them had token rewards
        batch, fresh = _with_token_advantages(batch), _with_token_advantages(fresh)
    if any(any(rollout.get("media") or ()) for rollout in (batch, fresh)):
        keep_media_by_row(batch)
        keep_media_by_row(fresh)
    joined = join_batches([batch, fresh], pad_token_id)
    order: list[int] = []
    for group in range(rows // size):
        first = rows + pairs[group] * size if group in pairs else group * size
        order += range(first, first + size)
    return select_rows(joined, order)


def _with_token_advantages(batch: Batch) -> Batch:
    """The batch with advantages (B, T)."""
    advantages = batch["advantages"]
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1) * batch["completion_mask"]
    return {**batch, "advantages": advantages}
