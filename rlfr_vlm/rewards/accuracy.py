"""The verifiable reward: is the boxed answer right?"""

from typing import Any

from rlfr_vlm.grading import Verdict, grade

SCORES = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0, Verdict.UNDECIDED: None}


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Text of a completion in either of TRL's shapes."""
    return completion if isinstance(completion, str) else completion[0]["content"] or ""


def accuracy(completions: list[Any], answer: list[Any], **kwargs: Any) -> list[float | None]:
    """1 when right, 0 when wrong, None when undecided (TRL then gives the row no advantage).

    >>> accuracy(completions=["so \\\\boxed{7}", "so \\\\boxed{8}", "7"], answer=["7", "7", "7"])
    [1.0, 0.0, 0.0]
    """
    return [
        SCORES[grade(gold=gold, response=completion_text(completion)).verdict]
        for completion, gold in zip(completions, answer, strict=True)
    ]
