"""Verifiable reward: 1 if the final answer is right, else 0."""

from collections import Counter
from collections.abc import Callable, Sequence

from rlfr_vlm.grading import Gold, Grade, GradingPool, Item, Reason, Verdict, grade_many
from rlfr_vlm.rewards.completion import Completion, completion_text

SCORES = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0, Verdict.UNDECIDED: None}


def accuracy(
    completions: Sequence[Completion],
    answer: Sequence[Gold],
    options: Sequence[Sequence[str] | None] | None = None,
    answer_type: Sequence[str | None] | None = None,
    reasoning_gym: Sequence[str | None] | None = None,
    *,
    no_answer_is_wrong: bool = True,
    tolerance: float = 0.0,
    pool: GradingPool | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: object,
) -> list[float | None]:
    """Return 1 for right, 0 for wrong and None for undecided answers. Rows with None are masked from the advantage.

    A response without an answer gets 0, or None if `no_answer_is_wrong` is False.

    Args:
        completions: responses, as strings or messages.
        answer: gold answers.
        options: texts of the options of multiple-choice questions.
        answer_type: `option`, `text`, or None to infer it from the gold.
        reasoning_gym: entries of reasoning-gym tasks, whose own scorers then decide.
        no_answer_is_wrong: give 0 instead of None to a response without an answer.
        tolerance: relative tolerance for numbers.
        pool: worker processes; by default the shared pool of this process.
        log_metric: called with the name and share of each reason for undecided answers.
        kwargs: other columns and arguments of TRL, which are ignored.

    >>> accuracy(completions=["so \\\\boxed{7}", "so \\\\boxed{8}", "7"], answer=["7", "7", "7"])
    [1.0, 0.0, 0.0]
    """
    nothing = [None] * len(completions)
    rows = zip(answer, completions, options or nothing, answer_type or nothing, reasoning_gym or nothing, strict=True)
    items = [
        Item(gold, completion_text(completion), None, row_options or (), row_type, entry or "")
        for gold, completion, row_options, row_type, entry in rows
    ]
    grades = grade_many(items, tolerance=tolerance, pool=pool)
    log_reasons(grades, log_metric)
    return [
        0.0 if no_answer_is_wrong and grade.reason == Reason.NO_ANSWER else SCORES[grade.verdict] for grade in grades
    ]


def log_reasons(grades: Sequence[Grade], log_metric: Callable[[str, float], None] | None) -> None:
    """Log the share of each reason for which answers are undecided; nothing without `log_metric`."""
    if log_metric is None:
        return
    reasons = Counter(grade.reason for grade in grades if grade.reason)
    for name, reason in vars(Reason).items():
        if name.isupper():
            log_metric(f"grading/{reason.replace(' ', '_')}", reasons[reason] / len(grades))
