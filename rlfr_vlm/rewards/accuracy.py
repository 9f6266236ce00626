"""The verifiable reward: is the final answer right?"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rlfr_vlm.grading import GradingPool, Item, Reason, Verdict, grade_many
from rlfr_vlm.rewards.completion import completion_text

SCORES = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0, Verdict.UNDECIDED: None}


def accuracy(
    completions: list[Any],
    answer: list[Any],
    options: Sequence[Any] | None = None,
    answer_type: Sequence[str | None] | None = None,
    *,
    no_answer_is_wrong: bool = True,
    tolerance: float = 0.0,
    pool: GradingPool | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **kwargs: Any,
) -> list[float | None]:
    """1 when right, 0 when wrong, None when undecided (the row is then masked from the advantage).

    A response that gives no answer has not earned the reward, so it gets 0, unless `no_answer_is_wrong` is False.

    >>> accuracy(completions=["so \\\\boxed{7}", "so \\\\boxed{8}", "7"], answer=["7", "7", "7"])
    [1.0, 0.0, 0.0]
    """
    count = len(completions)
    rows = zip(answer, completions, options or [()] * count, answer_type or [None] * count, strict=True)
    items = [
        Item(gold, completion_text(response), None, choices or (), kind) for gold, response, choices, kind in rows
    ]
    grades = grade_many(items, tolerance=tolerance, pool=pool)
    if log_metric is not None:
        reasons = Counter(grade.reason for grade in grades if grade.reason)
        for name, reason in vars(Reason).items():
            if name.isupper():
                log_metric(f"grading/{reason.replace(' ', '_')}", reasons[reason] / count)
    return [
        0.0 if no_answer_is_wrong and grade.reason == Reason.NO_ANSWER else SCORES[grade.verdict] for grade in grades
    ]
