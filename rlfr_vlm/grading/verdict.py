"""What can be known about an answer."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """Right, wrong, or not decided. Undecided is never a score."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


class Reason:
    """Why an answer is undecided, short enough to count by."""

    NO_ANSWER = "no answer"
    BAD_GOLD = "unreadable gold"
    BAD_ANSWER = "unreadable answer"
    FREE_TEXT = "free text"
    UNITS = "units differ"
    BASE = "base not stated"
    CASE = "letter case"
    TOO_LONG = "answer too long"
    TIME_OUT = "time-out"
    CRASH = "grader crashed"


@dataclass(frozen=True)
class Decision:
    """A verdict on a pair (gold, answer), the rule that reached it, and for undecided pairs the reason."""

    verdict: Verdict
    path: str
    reason: str = ""

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
