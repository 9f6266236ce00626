"""Verdicts on answers, and the reasons of undecided ones."""

from dataclasses import dataclass
from enum import Enum
from typing import NotRequired, TypedDict


class Verdict(Enum):
    """Outcome of grading. An undecided answer has no score."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class Reason:
    """Reasons why an answer is undecided. They are also the keys of counts and metrics."""

    NO_ANSWER = "no answer"
    BAD_GOLD = "unreadable gold"
    BAD_ANSWER = "unreadable answer"
    FREE_TEXT = "free text"
    UNITS = "units differ"
    BASE = "base not stated"
    CASE = "letter case"
    SEPARATORS = "ambiguous separators"
    NOTATION = "ambiguous notation"
    OPTION_TEXT = "option letter and text differ"
    ROUNDED = "rounded gold"
    LEFT_SIDE = "unknown left side"
    NOT_PROVED = "equality not proved"
    TOO_LARGE = "too large to compute"
    TOO_LONG = "answer too long"
    NO_ENTRY = "no task entry"
    SCORER_FAILED = "scorer failed"
    TIME_OUT = "time-out"
    CRASH = "grader crashed"


class Pair(TypedDict):
    """A gold and an answer to compare, as sent to a worker process."""

    gold: str
    answer: str
    tolerance: NotRequired[float]  # relative, for numbers; 0 by default
    plain: NotRequired[bool]  # compare with unpatched math-verify instead
    limit: NotRequired[float]  # seconds of CPU time; the pool's time limit by default
    entry: NotRequired[str]  # of reasoning-gym, whose scorer then decides (see grading/gym)


@dataclass(frozen=True)
class Decision:
    """The verdict on a pair (gold, answer).

    Attributes:
        path: the rule that reached it.
        reason: why it is undecided; empty otherwise.
        score: what a scorer gave, which may be between wrong and right; None where none did.
    """

    verdict: Verdict
    path: str
    reason: str = ""
    score: float | None = None

    @property
    def right(self) -> bool:
        return self.verdict is Verdict.RIGHT


def right(path: str) -> Decision:
    return Decision(Verdict.RIGHT, path)


def wrong(path: str) -> Decision:
    return Decision(Verdict.WRONG, path)


def undecided(path: str, reason: str) -> Decision:
    return Decision(Verdict.UNDECIDED, path, reason)


def decided(is_right: bool, path: str) -> Decision:
    return right(path) if is_right else wrong(path)
