"""Count the prompts, responses and updates of a training configuration; refuse one that would train nothing."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from trl import GRPOConfig


@dataclass(frozen=True)
class StepCounts:
    """Sizes of a training run; token counts are upper bounds.

    Attributes:
        prompts: prompts per rollout.
        responses: responses per rollout.
        updates: updates per rollout.
        per_update: responses per update.
        micro_batches: micro-batches per update, on each process.
        tokens: prompt and response tokens per rollout if all have maximum length; None if that is unknown.
        total: updates of the run; None if the number of rows is unknown.
    """

    prompts: int
    responses: int
    updates: int
    per_update: int
    micro_batches: int
    tokens: int | None
    total: int | None


def count_steps(args: "GRPOConfig", rows: int | None, max_prompt: int | None) -> StepCounts:
    """Count the steps of a configuration, whose rollout sizes TRL has derived from the number of processes.

    Args:
        args: a configuration whose `world_size` is the number of processes that will train.
        rows: rows of the training set.
        max_prompt: tokens of the longest prompt.
    """
    responses = args.generation_batch_size
    per_update = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    total = args.max_steps if args.max_steps > 0 else None
    if total is None and rows is not None:
        rollouts = rows // prompts_per_rollout(args)
        total = math.ceil(args.num_train_epochs * (rollouts * responses * args.num_iterations // per_update))
    return StepCounts(
        prompts=prompts_per_rollout(args),
        responses=responses,
        updates=max(responses * args.num_iterations // per_update, 1),
        per_update=per_update,
        micro_batches=args.gradient_accumulation_steps,
        tokens=None if max_prompt is None else responses * (max_prompt + (args.max_completion_length or 0)),
        total=total,
    )


def prompts_per_rollout(args: "GRPOConfig") -> int:
    """Return the number of different prompts of a rollout."""
    return max((args.generation_batch_size or 0) // (args.num_generations or 1), 1)


def prompts_of_epoch(args: "GRPOConfig", rows: int) -> int:
    """Return the number of prompts of an epoch, which has whole rollouts."""
    prompts = prompts_per_rollout(args)
    return rows // prompts * prompts


def refuse_too_few_rows(args: "GRPOConfig", rows: int) -> None:
    """Refuse a data set that does not fill one rollout: TRL drops incomplete ones, so nothing would be trained.

    Raises:
        UserError: there are fewer rows than prompts in a rollout.
    """
    prompts = prompts_per_rollout(args)
    if rows < prompts:
        raise UserError(
            f"The data set has {rows} rows, but a rollout takes {prompts} prompts, so no update would be "
            f"made: generation_batch_size {args.generation_batch_size} (per_device_train_batch_size "
            f"{args.per_device_train_batch_size} x {args.world_size} processes x steps_per_generation "
            f"{args.steps_per_generation}) / num_generations {args.num_generations}. Use more rows, a smaller "
            "per_device_train_batch_size or steps_per_generation, or more num_generations."
        )


def left_out_line(args: "GRPOConfig", rows: int) -> str:
    """Return how many rows do not fill a rollout and are left out of each epoch; "" if none is."""
    prompts = prompts_per_rollout(args)
    left = rows % prompts
    return (
        f"{left} of {rows} rows are left out of each epoch, others each time: a rollout takes {prompts} prompts"
        if left
        else ""
    )
