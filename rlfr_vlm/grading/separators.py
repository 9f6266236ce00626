"""Commas and full stops in numbers that can be read in two ways: as thousands, as decimals, or between two numbers."""

import re
from decimal import Decimal
from itertools import product

from rlfr_vlm.grading.verdict import Decision, Reason, undecided

ENGLISH = re.compile(r"[+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?")
SPACED_GROUPS = re.compile(r"[+-]?\d{1,3}(?:,\s*\d{3})+(?:\.\d+)?")  # `1, 234`: a list, or a number typed with a space
SHORT_LIST = re.compile(r"(?<![\w.,])(?<!\d )[1-9]\d*,\d(?![\d.,])")  # `1,2` in a gold is far more often a list
SEPARATED = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)+")
SPACES = re.compile(r"(?<=\d) (?=\d{3},\d)")  # `1 234,5`
GROUPED = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)")
EXCHANGED = str.maketrans(",.", ".,")
WHOLE = re.compile(r"\d{1,3},000")  # a thousand: nobody writes a whole number with three decimals after a comma
PAIR = re.compile(r"(?:[(\[]|\\\{)\s*\d+,\d+\s*(?:[)\]]|\\\})")  # `(1,234)`: a point or an interval


def compare_separators(gold: str, answer: str) -> Decision | None:
    """Return undecided if the texts are equal only if a comma with a space groups thousands.

    >>> compare_separators("1234", "1, 234").verdict.value, compare_separators("1234", "1,234")
    ('undecided', None)
    """
    if "," not in gold and "," not in answer:
        return None
    gold_values, answer_values = _readings(gold), _readings(answer)
    plain_gold, plain_answer = gold_values[0], answer_values[0]
    if plain_gold is not None and plain_gold == plain_answer:
        return None
    equal = {value for value in gold_values if value is not None} & {v for v in answer_values if v is not None}
    return undecided("number", Reason.SEPARATORS) if equal else None


def _readings(text: str) -> list[Decimal | None]:
    """Return the English value, None if there is none, and the value with spaces in thousands."""
    plain = text.strip().removeprefix("$").strip()
    if ENGLISH.fullmatch(plain):
        return [Decimal(plain.replace(",", ""))]
    return [None, Decimal(re.sub(r"[,\s]", "", plain))] if SPACED_GROUPS.fullmatch(plain) else [None]


def other_readings(gold: str, answer: str) -> list[tuple[str, str]]:
    """Return the pairs of texts that a pair stands for if its commas and points are not read as they are by default.

    >>> other_readings("1.5", "1,500"), other_readings("0.5", "(1,234, 5)")
    ([('1.5', '1.500')], [('0.5', '(1.234, 5)'), ('0.5', '(1234, 5)')])
    """
    golds = [gold] if SHORT_LIST.search(gold) else [gold, *_alternatives(gold)]
    return list(product(golds, [answer, *_alternatives(answer)]))[1:]


def _alternatives(text: str) -> list[str]:
    """Return the text with decimal commas written as points, and with the thousands of its lists grouped.

    All numbers of a text are of one country: `0.5` shows that `1,234` beside it has thousands.
    """
    numbers = SEPARATED.findall(text)
    if not numbers or PAIR.search(text):
        return []
    exchanged = [number.translate(EXCHANGED) for number in numbers]
    is_foreign = all(map(ENGLISH.fullmatch, exchanged)) and not any(map(WHOLE.fullmatch, numbers))
    joined = SPACES.sub("", text)
    texts = [SEPARATED.sub(lambda match: match[0].translate(EXCHANGED), joined)] if is_foreign else []
    grouped = GROUPED.sub(lambda match: match[0].replace(",", ""), text)
    return texts if ENGLISH.fullmatch(text) or grouped == text else [*texts, grouped]


def is_one_number(text: str) -> bool:
    """Return whether no comma in the text makes it a list or a decimal of another country: `1, 234` and `0,123` do."""
    return "," not in text or not re.search(r"\d,\s+\d|(?<![\d.,])0+\d*,\d", text)
