"""Judge an answer against a gold answer: right, wrong or undecided. Text is only ever parsed, never evaluated."""

import re
import threading
from dataclasses import dataclass
from enum import Enum

from rlfr_vlm.grading.extract import last_boxed

TIMEOUT_SECONDS = 5


class Verdict(Enum):
    """What is known about an answer. Undecided is never a score."""

    RIGHT = "right"
    WRONG = "wrong"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Grade:
    """A verdict, the answer it is about, and why (for wrong and undecided)."""

    verdict: Verdict
    extracted: str | None = None
    reason: str = ""


def grade(*, gold: str | float | None, response: str) -> Grade:
    """Grade a response by its last boxed answer.

    A response without a boxed answer is wrong: the prompt asks for one, and no other text is parsed in its place. A
    gold answer that cannot be parsed leaves the response undecided.
    """
    gold = "" if gold is None else str(gold)
    answer = last_boxed(response)
    if not gold.strip():
        return Grade(Verdict.UNDECIDED, answer, "the gold answer is empty")
    if not answer:
        return Grade(Verdict.WRONG, answer, "no boxed answer")
    return _verify(gold, answer)


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text).strip("$").rstrip(".")


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None


def _verify(gold: str, answer: str) -> Grade:
    plain_gold, plain_answer = _plain(gold), _plain(answer)
    if plain_gold == plain_answer:
        return Grade(Verdict.RIGHT, answer)
    gold_number, number = _integer(plain_gold), _integer(plain_answer)
    if gold_number is not None and number is not None:
        return Grade(Verdict.RIGHT if gold_number == number else Verdict.WRONG, answer)
    return _verify_with_math_verify(gold, answer)


def _delimited(text: str) -> str:
    return text if "$" in text else f"${text}$"


def _verify_with_math_verify(gold: str, answer: str) -> Grade:
    from math_verify import parse, verify

    # math-verify's limit is a process alarm, which only the main thread can set.
    limit = TIMEOUT_SECONDS if threading.current_thread() is threading.main_thread() else None
    try:
        parsed_gold = parse(_delimited(gold), parsing_timeout=limit)
        if all(isinstance(part, str) for part in parsed_gold):  # text it could make no expression of, or nothing
            return Grade(Verdict.UNDECIDED, answer, f"cannot parse the gold answer {gold!r}")
        parsed_answer = parse(_delimited(answer), parsing_timeout=limit)
        right = verify(gold=parsed_gold, target=parsed_answer, timeout_seconds=limit, raise_on_error=True)
    except Exception as error:  # whatever the parser dies of, the answer is not judged
        return Grade(Verdict.UNDECIDED, answer, f"grader failed: {type(error).__name__}")
    return Grade(Verdict.RIGHT if right else Verdict.WRONG, answer)
