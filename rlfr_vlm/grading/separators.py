"""Commas and full stops in numbers that can be read in two ways: as thousands, as decimals, or between two numbers."""

import re
from decimal import Decimal

from rlfr_vlm.grading.verdict import Decision, Reason, undecided

ENGLISH = re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?")
SPACED_GROUPS = re.compile(r"[+-]?\d{1,3}(?:,\s*\d{3})+(?:\.\d+)?")  # `1, 234`: a list, or a number typed with a space
DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:[. ]\d{3})+),\d+")  # `3,14` and `1.234,5`
SHORT_LIST = re.compile(r"[+-]?[1-9]\d*,\d")  # `1,2` as a gold: golds are lists of this kind far more often


def compare_separators(gold: str, answer: str) -> Decision | None:
    """Return undecided if the texts are equal under one reading of their commas and different under another.

    >>> compare_separators("1234", "1, 234").verdict.value, compare_separators("1234", "1,234")
    ('undecided', None)
    """
    if "," not in gold and "," not in answer:
        return None
    gold_values, answer_values = _readings(gold), _readings(answer)
    if SHORT_LIST.fullmatch(gold):
        gold_values = gold_values[:1]
    plain_gold, plain_answer = gold_values[0], answer_values[0]
    if plain_gold is not None and plain_gold == plain_answer:
        return None
    equal = {value for value in gold_values if value is not None} & {v for v in answer_values if v is not None}
    return undecided("number", Reason.SEPARATORS) if equal else None


def _readings(text: str) -> list[Decimal | None]:
    """Return the English value, None if there is none, and the values under other readings."""
    plain = text.strip().removeprefix("$").strip()
    english = Decimal(plain.replace(",", "")) if ENGLISH.fullmatch(plain) else None
    values: list[Decimal | None] = [english]
    if english is None and SPACED_GROUPS.fullmatch(plain):
        values.append(Decimal(re.sub(r"[,\s]", "", plain)))
    if english is None and DECIMAL_COMMA.fullmatch(plain):
        values.append(Decimal(re.sub(r"[. ]", "", plain).replace(",", ".")))
    return values


def is_one_number(text: str) -> bool:
    """Return whether no comma in the text makes it a list or a decimal of another country: `1, 234` and `0,123` do."""
    return "," not in text or not re.search(r"\d,\s+\d|(?<![\d.,])0+\d*,\d", text)
