"""Rules that need no computer algebra: equal text, option letters, numbers, words.

The rules run in the training process, so each takes time linear in the length of the text.
"""

import re
from collections.abc import Sequence

from rlfr_vlm.grading.colons import compare_colons
from rlfr_vlm.grading.dates import compare_dates
from rlfr_vlm.grading.letters import (
    LETTERS,
    letter_and_text,
    option_letter,
    option_letters,
    option_of_text,
    option_text,
)
from rlfr_vlm.grading.normalise import balanced, compact, normalise, unwrap
from rlfr_vlm.grading.numbers import Quantity, may_be_rounded, read_quantity, same_value
from rlfr_vlm.grading.sentences import without_lead_in
from rlfr_vlm.grading.separators import compare_separators, other_readings
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, decided, right, undecided, wrong
from rlfr_vlm.grading.words import compare_words, is_words

MAX_ANSWER = 2000  # characters
INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
LONE_LETTER = re.compile(rf"\(?[{LETTERS}]\)?")
SINGLE_LETTER_UNIT = re.compile(r"^(.*\d)\s+([A-Za-z])$")


def apply_rules(
    gold: str, answer: str, *, options: Sequence[str] = (), answer_type: str | None = None, tolerance: float = 0.0
) -> Decision | None:
    """Return the verdict of the first rule that applies; None if the pair needs computer algebra.

    Args:
        gold: one acceptable gold answer.
        answer: the extracted answer.
        options: texts of the options, for multiple choice.
        answer_type: `option`, `text` (any other words are wrong), or None to infer it from the gold.
        tolerance: relative tolerance for numbers.
    """
    decision = _first_rule(gold, answer, options, answer_type, tolerance)
    if decision is None or answer_type == "text" or not depends_on_separators(decision, gold, answer):
        return decision
    for pair in other_readings(normalise(gold), normalise(answer)):
        other = _first_rule(*pair, options, answer_type, tolerance)
        if other is not None and other.right:
            return undecided("number", Reason.SEPARATORS)
    return decision


def depends_on_separators(decision: Decision, gold: str, answer: str) -> bool:
    """Return whether a pair is wrong and has commas or points that may be meant otherwise, as in `1,234`."""
    if decision.verdict is not Verdict.WRONG or decision.path == "option":
        return False
    return (
        len(gold) <= MAX_ANSWER
        and len(answer) <= MAX_ANSWER
        and re.search(r"\d[.,]\d", f"{gold} {answer}") is not None
    )


def _first_rule(
    gold: str, answer: str, options: Sequence[str], answer_type: str | None, tolerance: float
) -> Decision | None:
    if not gold.strip():
        return undecided("gold", Reason.BAD_GOLD)
    if not answer.strip():
        return undecided("answer", Reason.NO_ANSWER)
    if len(answer) > MAX_ANSWER or len(gold) > MAX_ANSWER:
        return right("text") if answer.strip() == gold.strip() else undecided("text", Reason.TOO_LONG)
    if answer == gold and gold.isalnum():
        return right("text")
    if INTEGER.fullmatch(gold) and INTEGER.fullmatch(answer):  # the most frequent pair by far
        return decided(int(gold) == int(answer), "number")
    answer = without_lead_in(answer)
    normal_gold, normal_answer = normalise(gold), normalise(answer)
    if not re.search(r"\w|\\emptyset|\\infty", normal_gold):
        return undecided("gold", Reason.BAD_GOLD)
    if normal_gold == normal_answer:
        return right("text")
    if (decision := compare_separators(normal_gold, normal_answer)) is not None:
        return decision
    if same_text(normal_gold, normal_answer):
        return right("text")
    if (decision := _by_option(gold, answer, options, answer_type)) is not None:
        return decision
    if not options:
        normal_gold, normal_answer = _without_letter(normal_gold), _without_letter(normal_answer)
        if same_text(normal_gold, normal_answer):
            return right("text")
    if answer_type == "text":
        return decided(compact(normal_gold).casefold() == compact(normal_answer).casefold(), "text")
    return (
        _by_number(normal_gold, normal_answer, tolerance)
        or compare_colons(normal_gold, normal_answer)
        or compare_dates(normal_gold, normal_answer)
        or compare_words(normal_gold, normal_answer)
    )


def same_text(gold: str, answer: str) -> bool:
    """Return whether two texts are equal up to wrappers and spaces; for words also up to case."""
    plain_gold, plain_answer = compact(gold), compact(answer)
    if not plain_gold:
        return False
    return plain_gold == plain_answer or (is_words(gold) and plain_gold.casefold() == plain_answer.casefold())


def _by_option(gold: str, answer: str, options: Sequence[str], answer_type: str | None) -> Decision | None:
    marked = letter_and_text(gold)
    if not (answer_type == "option" or options or marked or LONE_LETTER.fullmatch(compact(normalise(gold)))):
        return _by_selection(gold, answer)
    gold_letter = option_letter(gold) or option_of_text(gold, options)
    if gold_letter is None:
        return _by_selection(gold, answer)
    letter = option_of_text(answer, options) or option_letter(answer)
    if letter is not None:
        if _contradicts(gold_letter, marked[1] if marked else option_text(gold_letter, options), letter, answer):
            return undecided("option", Reason.OPTION_TEXT)
        return decided(letter == gold_letter, "option")
    # Without option texts, the answer to a letter question must name a letter.
    return None if marked or option_text(gold_letter, options) else wrong("option")


def _by_selection(gold: str, answer: str) -> Decision | None:
    """Compare answers that select several options, such as `ABD` and `A, B, D`."""
    gold_letters = option_letters(gold)
    if gold_letters is None:
        return None
    letters = option_letters(answer)
    if letters is None:
        return wrong("option") if option_letter(answer) else None
    return decided(letters == gold_letters, "option")


def _contradicts(gold_letter: str, gold_text: str | None, letter: str, answer: str) -> bool:
    """Return whether the letter of an answer and the text behind it disagree about the gold."""
    marked = letter_and_text(answer)
    if marked is None or gold_text is None:
        return False
    gold_text, text = normalise(gold_text), normalise(marked[1])
    gold_number, number = read_quantity(gold_text), read_quantity(text)
    if gold_number is not None and number is not None:
        same = same_value(gold_number, number)
    else:
        same = same_text(gold_text, text)
        if letter == gold_letter and not same and (is_words(gold_text) or is_words(text)):
            return False  # the letter with other words about it
    return same != (letter == gold_letter)


def _without_letter(text: str) -> str:
    marked = letter_and_text(text)
    return marked[1] if marked else text


def value_of_gold(gold: str, options: Sequence[str]) -> str:
    """Return the text of the option that the gold names; the gold itself if it names none."""
    letter = option_letter(gold)
    text = option_text(letter, options) if letter else None
    return text or _without_letter(gold)


def _by_number(gold: str, answer: str, tolerance: float) -> Decision | None:
    gold_number, number = read_quantity(gold), read_quantity(answer)
    if gold_number is not None and number is not None:
        return _compare_quantities(gold_number, number, tolerance)
    if gold_number is not None and (not balanced(answer) or not re.search(r"[\w\\]", answer)):
        return wrong("number")
    match = SINGLE_LETTER_UNIT.match(unwrap(gold))
    if gold_number is None and match and number is not None and (bare := read_quantity(match[1])):
        # "2 m" is ambiguous: two metres, or the product of 2 and m.
        return undecided("number", Reason.UNITS) if same_value(bare, number, tolerance) else None
    return None


def _compare_quantities(gold: Quantity, number: Quantity, tolerance: float) -> Decision:
    equal = same_value(gold, number, tolerance)
    if not equal and number.value.denominator > 1 and may_be_rounded(gold, number):
        return undecided("number", Reason.ROUNDED)
    if gold.unit is None or number.unit is None or gold.unit == number.unit:
        return decided(equal, "number")
    if gold.value == number.value and not (gold.counts_things or number.counts_things):
        return wrong("unit")
    return undecided("unit", Reason.UNITS)  # may be a conversion, or a synonym of the unit
