"""Dates, ranges of years and scores: texts with dashes, which are not subtractions."""

import re

from rlfr_vlm.grading.verdict import Decision, Reason, right, undecided, wrong

MONTHS = [
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
]
MONTH = "|".join(f"{name}|{name[:3]}|{name[:4]}" for name in MONTHS)
Date = tuple[int | None, int, int | None]  # year, month, day
YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
MONTH_FIRST = re.compile(rf"({MONTH})\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?(?:\s*,?\s*(\d{{4}}))?", re.IGNORECASE)
DAY_FIRST = re.compile(rf"(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+({MONTH})\.?(?:\s*,?\s*(\d{{4}}))?", re.IGNORECASE)
MONTH_AND_YEAR = re.compile(rf"({MONTH})\.?\s*,?\s*(\d{{4}})", re.IGNORECASE)
SPAN = re.compile(r"(\d{1,4})\s*-{1,3}\s*(\d{1,4})")
YEARS = range(1000, 3000)


def compare_dates(gold: str, answer: str) -> Decision | None:
    """Return the verdict on dates, ranges of years and scores; None if neither text is one of them."""
    gold_dates, answer_dates = read_dates(gold), read_dates(answer)
    if gold_dates and answer_dates:
        return _compare_readings(gold_dates, answer_dates)
    if gold_dates or answer_dates:
        return undecided("date", Reason.NOTATION)
    gold_span, answer_span = read_span(gold), read_span(answer)
    if gold_span is None and answer_span is None:
        return None
    if gold_span and answer_span:
        if gold_span == answer_span:
            return right("span")
        return undecided("span", Reason.NOTATION) if gold_span == answer_span[::-1] else wrong("span")
    span, other = (gold_span, answer) if gold_span else (answer_span, gold)
    assert span is not None
    number = re.fullmatch(r"[+-]?\d+", other.strip())
    if number is None:
        return None if span[0] not in YEARS else undecided("span", Reason.NOTATION)
    return undecided("span", Reason.NOTATION) if int(number[0]) == span[0] - span[1] else wrong("span")


def read_dates(text: str) -> set[Date]:
    """Return the dates that a text may stand for: two for 1/2/2024, none for other text."""
    text = text.strip()
    found: list[Date] = []
    if match := YEAR_FIRST.fullmatch(text):
        found = [(int(match[1]), int(match[3]), int(match[4]))]
    elif match := YEAR_LAST.fullmatch(text):
        first, second, year = int(match[1]), int(match[3]), int(match[4])
        found = [(year, first, second), (year, second, first)]
    elif match := MONTH_FIRST.fullmatch(text):
        found = [(int(match[3]) if match[3] else None, _month(match[1]), int(match[2]))]
    elif match := DAY_FIRST.fullmatch(text):
        found = [(int(match[3]) if match[3] else None, _month(match[2]), int(match[1]))]
    elif match := MONTH_AND_YEAR.fullmatch(text):
        found = [(int(match[2]), _month(match[1]), None)]
    return {date for date in found if _is_possible(date)}


def _month(name: str) -> int:
    return next(i for i, month in enumerate(MONTHS, 1) if month.startswith(name.lower()[:3]))


def _is_possible(date: Date) -> bool:
    year, month, day = date
    return (year is None or year in YEARS) and 1 <= month <= 12 and (day is None or 1 <= day <= 31)


def _compare_readings(gold: set[Date], answer: set[Date]) -> Decision:
    pairs = [(first, second) for first in gold for second in answer]
    if all(any(a != b and None not in (a, b) for a, b in zip(*pair, strict=True)) for pair in pairs):
        return wrong("date")
    return right("date") if gold == answer and len(gold) == 1 else undecided("date", Reason.NOTATION)


def read_span(text: str) -> tuple[int, int] | None:
    """Read two whole numbers joined by a dash: a score, a range, or years."""
    match = SPAN.fullmatch(text.strip())
    return (int(match[1]), int(match[2])) if match else None
