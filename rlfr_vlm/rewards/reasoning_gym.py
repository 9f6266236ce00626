"""Reward of reasoning-gym tasks: what the task's own scorer says of the final answer."""

from collections.abc import Callable, Sequence

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import GradingPool, Item, Reason, Verdict
from rlfr_vlm.grading.gym import ENTRY_COLUMN, PREFIX
from rlfr_vlm.grading.gym.grade import grade_entries, scoring_pool
from rlfr_vlm.rewards.accuracy import log_reasons
from rlfr_vlm.rewards.completion import Completion, completion_text


def reasoning_gym(
    completions: Sequence[Completion],
    reasoning_gym: Sequence[str | None] | None = None,
    *,
    partial_scores: bool = False,
    no_answer_is_wrong: bool = True,
    pool: GradingPool | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Return 1 for a score of 1, 0 for a lower one, and None where the scorer raises or runs over the time limit.

    A row without an entry is undecided, too. A response without an answer gets 0, or None if `no_answer_is_wrong` is
    False.

    Args:
        completions: responses, as strings or messages.
        reasoning_gym: entries of the rows, as `rlfr_vlm.grading.gym.entry.pack` writes them.
        partial_scores: give scores below 1 as they are.
        no_answer_is_wrong: give 0 instead of None to a response without an answer.
        pool: scoring processes; by default the shared ones of this process.
        log_metric: called with the name and share of each reason for undecided answers.
        kwargs: other columns and arguments of TRL, which are ignored.

    Raises:
        UserError: the rows have no column of entries.
    """
    if reasoning_gym is None:
        raise UserError(
            f"The reward reasoning_gym needs the column {ENTRY_COLUMN} of a data set {PREFIX}TASK, and the rows have "
            "none. Name such a data set, or another reward."
        )
    rows = zip(completions, reasoning_gym, strict=True)
    items = [Item("", completion_text(completion), entry=entry or "") for completion, entry in rows]
    grades = grade_entries(items, pool or scoring_pool())
    log_reasons(grades, log_metric)
    rewards: list[float | None] = []
    for grade in grades:
        wrong = grade.verdict is Verdict.WRONG or (no_answer_is_wrong and grade.reason == Reason.NO_ANSWER)
        if grade.verdict is Verdict.UNDECIDED and not wrong:
            rewards.append(None)
        elif grade.verdict is Verdict.RIGHT:
            rewards.append(1.0)
        else:
            rewards.append(grade.score or 0.0 if partial_scores else 0.0)
    return rewards
