"""Clock times and ratios: texts with a colon, which is not a division."""

import re
from dataclasses import dataclass
from fractions import Fraction

from rlfr_vlm.grading.normalise import strip_ends, unwrap
from rlfr_vlm.grading.numbers import read_quantity
from rlfr_vlm.grading.verdict import Decision, Reason, decided, right, undecided, wrong

CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?(?::(?P<second>[0-5]\d))?\s*"
    r"(?:(?P<half>[ap])\.?\s?m\.?|o'?\s?clock)?",
    re.IGNORECASE,
)
HALF_DAY = 12 * 3600  # seconds


@dataclass(frozen=True)
class Clock:
    """A time of day. `seconds` since midnight; `certain` if it is known to be before or after noon."""

    seconds: int
    certain: bool


def compare_colons(gold: str, answer: str) -> Decision | None:
    """Return the verdict on clock times and ratios of numbers; None if neither text is one of them."""
    gold, answer = strip_ends(unwrap(gold)), strip_ends(unwrap(answer))
    gold_ratio, answer_ratio = read_ratio(gold), read_ratio(answer)
    gold_clock, answer_clock = read_clock(gold), read_clock(answer)
    if gold_clock and answer_clock:
        same_ratio = gold_ratio is not None and answer_ratio is not None and same_ratios(gold_ratio, answer_ratio)
        verdict = compare_clocks(gold_clock, answer_clock)
        return undecided("clock", Reason.NOTATION) if same_ratio and not verdict.right else verdict
    if gold_ratio is not None and answer_ratio is not None:
        return decided(same_ratios(gold_ratio, answer_ratio), "ratio")
    if (gold_clock and gold_ratio is None) or (answer_clock and answer_ratio is None):
        return undecided("clock", Reason.NOTATION)  # a time against a duration, a number or words
    if gold_ratio is not None or answer_ratio is not None:
        terms = gold_ratio or answer_ratio or []
        number = read_quantity(answer if gold_ratio is not None else gold)
        if number is None:
            return None
        if len(terms) > 2:
            return wrong("ratio")
        return decided(terms[0] == terms[1] * number.value, "ratio")
    return None


def read_clock(text: str) -> Clock | None:
    """Read a time of day such as `3:05`, `15:05:00`, `3 pm` or `3 o'clock`."""
    match = CLOCK.fullmatch(text.strip())
    if match is None or int(match["hour"]) > 24 or match.end() == match.end("hour"):
        return None
    hour, half = int(match["hour"]), (match["half"] or "").lower()
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    seconds = 3600 * hour + 60 * int(match["minute"] or 0) + int(match["second"] or 0)
    return Clock(seconds, bool(half) or hour > 12 or hour == 0)


def compare_clocks(gold: Clock, answer: Clock) -> Decision:
    """Compare times. Twelve hours between them are undecided, unless both say whether it is before noon."""
    if gold.seconds == answer.seconds:
        return right("clock") if answer.certain or not gold.certain else undecided("clock", Reason.NOTATION)
    if (gold.seconds - answer.seconds) % HALF_DAY == 0 and not (gold.certain and answer.certain):
        return undecided("clock", Reason.NOTATION)
    return wrong("clock")


def read_ratio(text: str) -> list[Fraction] | None:
    """Read a ratio of two or more numbers, such as `12:4:1`; None for other text, and if a term is 0."""
    if ":" not in text or len(text) > 200:
        return None
    terms = [read_quantity(term.strip()) for term in text.split(":")]
    values = [term.value for term in terms if term is not None and term.unit is None]
    return values if len(values) == len(terms) and all(values) else None


def same_ratios(gold: list[Fraction], answer: list[Fraction]) -> bool:
    """Return whether the terms of two ratios are proportional."""
    if len(gold) != len(answer):
        return False
    return all(a * answer[0] == b * gold[0] for a, b in zip(gold, answer, strict=True))
