"""Parse a judge's replies: verdicts on our own prompt (`read_verdict`) and replies to VLMEvalKit's (`vlm_reader`).

Parsing is strict: a reply without a clear answer leaves the judged answer undecided. VLMEvalKit itself takes the whole
reply as the answer, so "Extracted answer: 14" is wrong there, and it replaces a reply that names no option by a random
one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rlfr_eval.judge.prompt import code_of
from rlfr_vlm.grading import Reason, Verdict
from rlfr_vlm.grading.extract import DISCARDED, remove_reasoning
from rlfr_vlm.grading.verdict import Decision

VERDICTS = {"CORRECT": Verdict.RIGHT, "INCORRECT": Verdict.WRONG, "UNSURE": Verdict.UNDECIDED}
# Increase it whenever a reply is parsed differently: verdicts of another version are then judged again.
VLM_READER_VERSION = "2"
NO_OPTION = "Z"  # VLMEvalKit's letter for "none of the options"
NO_ANSWER = frozenset(
    [
        "",
        "none",
        "n/a",
        "na",
        "null",
        "no answer",
        "not provided",
        "not found",
        "not given",
        "unknown",
        "cannot be determined",
        "cannot determine",
        "no answer found",
        "no answer provided",
    ]
)
LONGEST_ANSWER = 200  # characters; a longer text is no extracted answer
LABEL = re.compile(
    r"^\W*(?:(?:the\s+)?(?:extracted|model|final|short|correct)?\s*(?:answer|option|choice)|(?:your\s+)?output|judg?e?ment)"
    r"\W*?(?:\s+is\b\s*[:：]?|\s*[:：=])\s*",
    re.IGNORECASE,
)
PART = re.compile(r"\W*[^\W\d_][\w ]{0,30}[:=]\s*\S")  # one line of a multi-line answer: `Domain: (-3, 3]`
# A number that is not part of another number or of `2.5cm`, `1,000km`, `3,4`.
NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)(?:[eE][-+]?\d+)?(?![.,]?\w|\s*%)")
NEGATION = re.compile(r"\b(?:reject|dismiss|avoid|except|never|none|against)\w*\b", re.IGNORECASE)
MINUS_WORD = re.compile(r"\b(?:minus|negative)\b", re.IGNORECASE)
LETTER = re.compile(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])")
WRAPPING = " \t*_`\"'“”‘’<>[]().,;:$"


class JudgeReason(Reason):
    """Why a judge left an answer undecided."""

    UNSURE = "judge unsure"
    NONSENSE = "judge gave no verdict"
    CUT_OFF = "judge cut off"
    FAILED = "judge failed"
    BUDGET = "judge budget used up"


class ParsedReply(NamedTuple):
    """The value of a judge's reply; None with a reason if the reply has no clear value."""

    value: str | None
    reason: str = ""


ReplyReader = Callable[[str, str], ParsedReply]  # (reply, finish reason) -> parsed reply


def read_verdict(reply: str, finish_reason: str, question: str, golds: Sequence[str], prediction: str) -> Decision:
    """Return the last verdict in a reply to `judge_messages`; undecided if no verdict carries the right code."""
    visible = _visible(reply, finish_reason)
    if visible is None:
        return Decision(Verdict.UNDECIDED, "judge", JudgeReason.CUT_OFF)
    code = code_of(question, golds, prediction)
    # The verdict needs a line of its own. re.ASCII keeps look-alike letters from matching.
    line = rf"^\W*VERDICT\W+{code}\W*[:=]\W*(CORRECT|INCORRECT|UNSURE)\W*$"
    words = re.findall(line, visible, re.IGNORECASE | re.ASCII | re.MULTILINE)
    if not words:
        return Decision(Verdict.UNDECIDED, "judge", JudgeReason.NONSENSE)
    verdict = VERDICTS[words[-1].upper()]
    return Decision(verdict, "judge", JudgeReason.UNSURE if verdict is Verdict.UNDECIDED else "")


def vlm_reader(kind: str, choices: Mapping[str, str]) -> ReplyReader:
    """Return the parser of replies to one of VLMEvalKit's judge prompts.

    Args:
        kind: a key of `VLM_READERS`; the scoring functions in `worker/row_scores.py` say which one they need.
        choices: option letter -> text; empty for a question without options.
    """

    def read(reply: str, finish_reason: str) -> ParsedReply:
        visible = _visible(reply, finish_reason)
        if visible is None:
            return ParsedReply(None, JudgeReason.CUT_OFF)
        value = VLM_READERS[kind](visible.strip(), choices)
        return ParsedReply(value, "" if value is not None else JudgeReason.NONSENSE)

    return read


def _visible(reply: str, finish_reason: str) -> str | None:
    """Return the reply without its reasoning; None if it was cut off."""
    visible, reasoning = remove_reasoning(reply)
    return None if finish_reason == "length" or reasoning == "unclosed" else visible


def _labelled(reply: str) -> str | None:
    """Return the text after the last label, or the only line; None for several lines without a label."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    for index in reversed(range(len(lines))):
        match = LABEL.match(lines[index])
        if match and match.end() < len(lines[index]):
            return "\n".join([lines[index][match.end() :].strip(), *lines[index + 1 :]])
    return lines[0] if len(lines) == 1 else None if lines else ""


def _has_negation(text: str) -> bool:
    """Return whether the text contains a negation, so that the named option may be the rejected one."""
    return bool(DISCARDED.search(text) or NEGATION.search(text))


def _is_no_answer(text: str) -> bool:
    return text.strip(WRAPPING).lower() in NO_ANSWER


def _answer(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return a short answer unchanged; several lines only if each one is a `name: value` part.

    >>> _answer("Extracted answer: 14", {}), _answer("**3/4**", {}), _answer("Well.\\nIt may be 3 or 4.", {})
    ('14', '3/4', None)
    """
    text = _labelled(reply)
    text = reply if text is None else text
    lines = text.splitlines()
    if len(text) > LONGEST_ANSWER or (len(lines) > 1 and not all(map(PART.match, lines))):
        return None
    if _is_no_answer(text):
        return ""
    return None if text.lower().startswith("not ") else text.strip(' \t*`"')


def _number(reply: str, integer: bool) -> str | None:
    text = _answer(reply, {})
    if text is None or text == "":
        return text
    numbers = {float(number.replace(",", "")) for number in NUMBER.findall(text)}
    if len(numbers) != 1 or re.search(r"\d", NUMBER.sub("", text)) or MINUS_WORD.search(text) or _has_negation(text):
        return None
    number = numbers.pop()
    return str(int(number)) if number.is_integer() and integer else repr(number)


def _integer(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return the only number of a reply, without the fraction `.0`.

    >>> _integer("14.0", {}), _integer("The answer is 14 apples", {}), _integer("3 or 4", {})
    ('14', '14', None)
    """
    return _number(reply, integer=True)


def _float(reply: str, choices: Mapping[str, str]) -> str | None:
    return _number(reply, integer=False)


def _letter(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return the letter of the only option that a reply names by letter or text, or `Z` for none of them.

    >>> _letter("**B**", {"A": "", "B": ""}), _letter("A or B", {"A": "", "B": ""}), _letter("Z", {"A": ""})
    ('B', None, 'Z')
    """
    text = _labelled(reply)
    text = reply if text is None else text
    bare = text.strip(WRAPPING)
    allowed = {*choices, NO_OPTION}
    if len(bare) == 1:
        return bare.upper() if bare.upper() in allowed else None
    if _is_no_answer(text):
        return NO_OPTION
    by_text = [letter for letter, option in choices.items() if option.strip().lower() == text.strip().lower()]
    if len(by_text) == 1:
        return by_text[0]
    if _has_negation(text):
        return None
    letters = {letter for letter in LETTER.findall(text) if letter in allowed}
    if opening := re.match(r"\W*([A-Z])\s*[.):]\s", text):  # a letter followed by its option: `B. 8/11`
        return opening[1] if letters == {opening[1]} else None
    # "A" and "I" are also words
    candidates = letters - {"A", "I"} or (
        letters if re.search(r"(?:option|answer|choice)\W+(?:is\W+)?A\b", text, re.I) else set()
    )
    return candidates.pop() if len(candidates) == 1 and len(letters) == 1 else None


def _option(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a reply names by letter or text; "" for none of them.

    >>> _option("8/11", {"A": "3/11", "B": "8/11"}), _option("(B) 8/11", {"A": "3/11", "B": "8/11"})
    ('B', 'B')
    """
    letter = _letter(reply, choices)
    return "" if letter == NO_OPTION else letter


def _letters(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return distinct option letters without separators; `Z` for none.

    >>> _letters("A, D", {}), _letters("Your output: B", {}), _letters("ERROR", {})
    ('AD', 'B', None)
    """
    text = _labelled(reply)
    if text is None:
        return None
    if _is_no_answer(text):
        return NO_OPTION
    bare = re.sub(r"[\s,;&*().\"'`]|\band\b", "", text)
    return bare if re.fullmatch(r"[A-H]+|Z", bare) and len(set(bare)) == len(bare) else None


def _binary(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return "0" or "1".

    >>> _binary("Judgement: 1", {}), _binary("1", {}), _binary("0 or 1", {}), _binary("10", {})
    ('1', '1', None, None)
    """
    text = (_labelled(reply) or "").strip(WRAPPING)
    return text if text in ("0", "1") else None


VLM_READERS: dict[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "answer": _answer,
    "integer": _integer,
    "float": _float,
    "letter": _letter,
    "option": _option,
    "letters": _letters,
    "binary": _binary,
}
