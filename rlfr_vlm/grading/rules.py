"""Rules that need no computer algebra: equal text, option letters, numbers, words.

The rules run in the training process, so each takes time linear in the length of the text.
"""

import re
from collections.abc import Sequence

from rlfr_vlm.grading.letters import LETTERS, option_letter, option_of_text, option_text
from rlfr_vlm.grading.normalise import balanced, compact, normalise, unwrap
from rlfr_vlm.grading.numbers import Quantity, read_quantity, same_value
from rlfr_vlm.grading.verdict import Decision, Reason, decided, right, undecided, wrong

MAX_ANSWER = 2000  # characters
NOTHING = frozenset(["none", "nothing", "no", "neither", "null", "empty", "zero", "never", "无", "无解", "不存在"])
WORD = r"[A-Za-z'\u00c0-\u024f-]{2,}|[\u4e00-\u9fff]+"
WORD_GAP = re.compile(r"[\s,.;:!?()/\"]+")
A_WORD = re.compile(r"[A-Za-z'\u00c0-\u024f\u4e00-\u9fff-]{2,}|[AaI\u4e00-\u9fff]")
SHORT_WORDS = frozenset(["yes", "no", "odd", "even", "one", "two", "six", "ten", "red", "all", "any"])
OPPOSITES = [
    {"yes", "no"},
    {"true", "false"},
    {"正确", "错误"},
    {"是", "否"},
    {"对", "错"},
    {"是", "不是"},
    {"正确", "不正确"},
]
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
    normal_gold, normal_answer = normalise(gold), normalise(answer)
    if not re.search(r"\w|\\emptyset|\\infty", normal_gold):
        return undecided("gold", Reason.BAD_GOLD)
    if normal_gold == normal_answer or same_text(normal_gold, normal_answer):
        return right("text")
    if (decision := _by_option(gold, answer, options, answer_type)) is not None:
        return decision
    if answer_type == "text":
        return decided(compact(normal_gold).casefold() == compact(normal_answer).casefold(), "text")
    return _by_number(normal_gold, normal_answer, tolerance) or _by_words(normal_gold, normal_answer)


def same_text(gold: str, answer: str) -> bool:
    """Return whether two texts are equal up to wrappers and spaces; for words also up to case."""
    plain_gold, plain_answer = compact(gold), compact(answer)
    if not plain_gold:
        return False
    return plain_gold == plain_answer or (is_words(gold) and plain_gold.casefold() == plain_answer.casefold())


def _by_option(gold: str, answer: str, options: Sequence[str], answer_type: str | None) -> Decision | None:
    if not (answer_type == "option" or options or LONE_LETTER.fullmatch(compact(normalise(gold)))):
        return None
    gold_letter = option_letter(gold) or option_of_text(gold, options)
    if gold_letter is None:
        return None
    letter = option_of_text(answer, options) or option_letter(answer)
    if letter is not None:
        return decided(letter == gold_letter, "option")
    # Without option texts, the answer to a letter question must name a letter.
    return None if option_text(gold_letter, options) else wrong("option")


def value_of_gold(gold: str, options: Sequence[str]) -> str:
    """Return the text of the option that the gold names; the gold itself if it names none."""
    letter = option_letter(gold)
    return (letter and option_text(letter, options)) or gold


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
    if gold.unit is None or number.unit is None or gold.unit == number.unit:
        return decided(equal, "number")
    if gold.value == number.value and not (gold.counts_things or number.counts_things):
        return wrong("unit")
    return undecided("unit", Reason.UNITS)  # may be a conversion, or a synonym of the unit


def is_words(text: str) -> bool:
    """Return whether the text consists of ordinary words and is not a product of variables."""
    plain = unwrap(text).strip()
    words = [word for word in WORD_GAP.split(plain) if word.strip("-'")]
    if not words or not all(A_WORD.fullmatch(word) for word in words):
        return False
    return plain != text.strip() or len(plain) > 3 or plain.casefold() in SHORT_WORDS or not plain.isascii()


def _by_words(gold: str, answer: str) -> Decision | None:
    gold_words, answer_words = _words(gold), _words(answer)
    if gold_words is None and answer_words is None:
        return None
    if gold_words is None or answer_words is None:
        words, expression = (gold_words, answer) if gold_words is not None else (answer_words or [], gold)
        if NOTHING & set(words) and compact(expression) in ("0", "\\emptyset"):  # "none" may mean either
            return undecided("words", Reason.FREE_TEXT)
        return wrong("words")
    if any({w[0] for w in (gold_words, answer_words)} == pair for pair in OPPOSITES):
        return wrong("words")
    if len(gold_words) == len(answer_words) == 1 and not (NOTHING & {gold_words[0], answer_words[0]}):
        first, second = gold_words[0], answer_words[0]
        if not (first.startswith(second) or second.startswith(first)) and first.isascii() and second.isascii():
            return wrong("words")
    return undecided("words", Reason.FREE_TEXT)


def _words(text: str) -> list[str] | None:
    return re.findall(WORD, unwrap(text).casefold()) if is_words(text) else None
