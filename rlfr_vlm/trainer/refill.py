"""Dynamic sampling: replace the groups of a rollout that teach nothing by groups of new prompts."""

from collections.abc import Callable
from typing import Any

import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.batches import Batch, join_batches, select_rows


def refill_groups(trainer: Any, batch: Batch, rollout: Callable[[list[dict[str, Any]]], Batch]) -> Batch:
    """Roll out new prompts until all groups may teach, or the rounds are used up.

    All processes do the same number of rollouts of the same size. What cannot be replaced stays, without advantage.

    Args:
        trainer: gives settings, data and the selector.
        batch: the first rollout, with `keep` (B,).
        rollout: generates, scores and shapes rows.
    """
    size, rows = trainer.num_generations, len(batch["keep"])
    if rows % size:
        raise UserError(
            f"refill_rounds needs whole groups on each process, but {rows} responses a process are no multiple of "
            f"num_generations {size}. Raise per_device_train_batch_size or steps_per_generation, or lower "
            "num_generations."
        )
    accelerator = trainer.accelerator
    rounds = 0
    for _ in range(trainer.args.refill_rounds):
        dropped = _groups(batch, size, keep=False)
        needed = int(accelerator.gather(torch.tensor([len(dropped)], device=accelerator.device)).max())
        if needed == 0:
            break
        rounds += 1
        numbers = trainer.selector.new_prompts(needed, accelerator.process_index, accelerator.num_processes)
        fetched = trainer.train_dataset.__getitems__(list(numbers))  # at once, so that all have the same columns
        inputs = [row for row in fetched for _ in range(size)]
        fresh = rollout(inputs)
        batch = _replace(batch, fresh, dropped, _groups(fresh, size, keep=True), size, trainer)
    left = len(_groups(batch, size, keep=False)) / (rows // size)
    trainer._log_values({"groups/refill_rounds": float(rounds), "groups/not_refilled": trainer._mean(left)})
    batch["num_items_in_batch"] = accelerator.gather(_loss_tokens(batch)).sum()
    return batch


def _groups(batch: Batch, size: int, *, keep: bool) -> list[int]:
    """Numbers of the groups that are kept, or dropped."""
    return [number for number, kept in enumerate(batch["keep"][::size].tolist()) if bool(kept) is keep]


def _replace(batch: Batch, fresh: Batch, dropped: list[int], good: list[int], size: int, trainer: Any) -> Batch:
    """Put the good groups of a fresh rollout where groups were dropped."""
    pairs = dict(zip(dropped, good, strict=False))
    if not pairs:
        return batch
    rows = len(batch["keep"])
    if batch["advantages"].dim() != fresh["advantages"].dim():  # only one of them had token rewards
        batch, fresh = (_per_token(own) for own in (batch, fresh))
    joined = join_batches([batch, fresh], trainer._tokenizer.pad_token_id)
    order: list[int] = []
    for group in range(rows // size):
        first = rows + pairs[group] * size if group in pairs else group * size
        order += range(first, first + size)
    return select_rows(joined, order)


def _per_token(batch: Batch) -> Batch:
    """The batch with advantages (B, T)."""
    advantages = batch["advantages"]
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1) * batch["completion_mask"]
    return {**batch, "advantages": advantages}


def _loss_tokens(batch: Batch) -> torch.Tensor:
    mask = batch["completion_mask"]
    return (mask * batch["tool_mask"] if "tool_mask" in batch else mask).sum()
