"""Checks of a row's answer and options: each gold must be a value that a response can give."""

import datetime
import decimal
import math
import re
from collections.abc import Sequence
from typing import Any

from rlfr_vlm.data.rows import BadRow, Row, short
from rlfr_vlm.data.text_checks import check_encoding, check_tokens, is_visible
from rlfr_vlm.grading import extract
from rlfr_vlm.grading.letters import LETTERS, option_letter

# How tables and spreadsheets write no value, or a failed formula.
MISSING_WORDS = frozenset(
    ["nan", "NaN", "-nan", "None", "N/A", "n/a", "#N/A", "null", "NULL", "NaT", "<NA>", "#VALUE!", "#REF!", "#DIV/0!"]
)
BOOLEANS = {True: ["yes", "true"], False: ["no", "false"]}  # golds that a boolean stands for
SOLUTION_MARK = "####"  # GSM8K: the last line of a solution has the answer behind it
WRAPPED = re.compile(r"\\(?:boxed|fbox)\b|<answer>|\banswer is\b", re.IGNORECASE)
LETTER_AND_TEXT = re.compile(r"\(?([A-Za-z])\)?[.):]?(?:\s+(.*))?", re.DOTALL)


def clean_answer(row: Row) -> object:
    """Return the row's answer in a form that the grader reads.

    The index of an option becomes its letter, a boolean the words for it, a solution its final answer.

    Raises:
        BadRow: the answer is missing, not finite, of another type, or no option.
    """
    answer, options = row["answer"], row.get("options")
    golds = [_clean_gold(gold, options or ()) for gold in (answer if isinstance(answer, list | tuple) else [answer])]
    if options:
        golds = [_option_gold(gold, options) for gold in golds]
    elif row.get("answer_type") == "option" and not all(option_letter(str(gold)) for gold in golds):
        raise BadRow("options", f"answer_type is option without options, and the answer is {short(answer)}")
    if not isinstance(answer, list | tuple) and not isinstance(golds[0], bool):
        return golds[0]
    return [word for gold in golds for word in (BOOLEANS[gold] if isinstance(gold, bool) else [gold])]


def _clean_gold(gold: Any, options: Sequence[str]) -> str | int | float | bool:
    if isinstance(gold, decimal.Decimal):
        gold = format(gold, "f") if gold.is_finite() else math.nan
    elif isinstance(gold, datetime.date | datetime.time):
        gold = gold.isoformat()
    if isinstance(gold, float) and not math.isfinite(gold):
        raise BadRow("answer", f"the answer is {gold}, not a finite number")
    if not isinstance(gold, str | int | float):
        raise BadRow("answer", f"the answer is {short(gold)}; it must be a text, a number or a list of them")
    if isinstance(gold, str):
        check_encoding(gold, "answer")
        check_tokens(gold, "answer")
        if gold.strip() in MISSING_WORDS and gold not in options:
            raise BadRow("answer", f"the answer is {gold!r}, which marks a missing value")
        if not is_visible(gold):
            raise BadRow("answer", "the answer is blank")
        gold = final_answer(gold)
    return gold


def final_answer(gold: str) -> str:
    """Return the final answer of a gold that is a whole solution; any other gold as it is.

    Raises:
        BadRow: the solution has no final answer.

    >>> final_answer("24 + 48 = 72\\n#### 72"), final_answer("The answer is 72."), final_answer("red")
    ('72', '72', 'red')
    """
    if SOLUTION_MARK in gold:
        answer: str | None = gold.rpartition(SOLUTION_MARK)[2].strip()
    elif WRAPPED.search(gold):
        answer = extract(gold).answer
    else:
        return gold
    if not answer:
        raise BadRow("answer", f"the answer is a solution without a final answer: {gold[-60:]!r}")
    return answer


def _option_gold(gold: str | int | float | bool, options: Sequence[str]) -> str | int | float | bool:
    """Return the gold of a multiple-choice question: a letter, or the text of an option."""
    letters = LETTERS[: len(options)]
    text = str(gold).strip()
    words = BOOLEANS[gold] if isinstance(gold, bool) else [text]
    exact = [
        letter
        for letter, option in zip(letters, options, strict=True)
        if without_spaces(option) == without_spaces(text)
    ]
    alike = [letters[index] for index, option in enumerate(options) if any(_same(option, word) for word in words)]
    by_text = exact or alike
    if type(gold) is int:
        by_index = letters[gold] if 0 <= gold < len(options) else ""
        if by_text and by_index and by_text != [by_index]:
            raise BadRow("options", f"the answer {gold} is both an option and the index of another one")
        if not by_text and not by_index:
            raise BadRow("options", f"the answer {gold} is no option and no index of one, which begin at 0")
        return by_text[0] if by_text else by_index
    if len(by_text) > 1:
        raise BadRow("options", f"the answer {text[:80]!r} is options {' and '.join(by_text)}")
    if by_text and len(text) == 1 and text.upper() in letters and text.upper() != by_text[0]:
        raise BadRow("options", f"the answer {text!r} is the letter of an option and the text of option {by_text[0]}")
    if by_text:
        return by_text[0] if len(alike) > 1 or isinstance(gold, bool) else gold
    match = LETTER_AND_TEXT.fullmatch(text)
    if match and match[1].upper() in letters:
        letter, rest = match[1].upper(), match[2]
        if not rest:
            return gold
        if _same(rest, options[letters.index(letter)]):
            return letter
    raise BadRow("options", f"the answer {text[:80]!r} is none of the {len(options)} options")


def check_options(options: Sequence[str]) -> None:
    """Check the options of a multiple-choice question.

    Raises:
        BadRow: one option, more than the grader has letters for, an empty one, or two that are equal.
    """
    if len(options) > len(LETTERS):
        raise BadRow("options", f"the row has {len(options)} options; the grader reads the letters A to {LETTERS[-1]}")
    if len(options) == 1:
        raise BadRow("options", f"the row has one option, {options[0][:80]!r}, so there is nothing to choose")
    for option in options:
        check_encoding(option, "option")
    if not all(map(is_visible, options)):
        raise BadRow("options", "an option is empty")
    texts = [without_spaces(option) for option in options]
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise BadRow("options", f"two options are equal: {twice[:80]!r}")


def without_spaces(text: str) -> str:
    """Return a text without spaces and `$`, in which spellings of an option differ."""
    return re.sub(r"[\s$]", "", text)


def _same(first: str, second: str) -> bool:
    return without_spaces(first).lower() == without_spaces(second).lower()
