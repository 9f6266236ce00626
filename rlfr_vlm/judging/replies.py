"""Parse a judge's replies: verdicts on our own prompt (`read_verdict`) and replies to VLMEvalKit's (`vlm_reader`).

Parsing is strict: a reply without a clear answer leaves the judged answer undecided. VLMEvalKit itself takes the whole
reply as the answer, so "Extracted answer: 14" is wrong there, and it replaces a reply that names no option by a random
one.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from rlfr_vlm.grading import Reason, Verdict
from rlfr_vlm.grading.extract import DISCARDED, remove_reasoning
from rlfr_vlm.grading.verdict import Decision
from rlfr_vlm.judging.prompt import CHECK, CHOOSE, COMPARE, WORDS, code_of, verdict_instructions

# Increase it whenever a reply is parsed differently: verdicts of another version are then judged again.
VLM_READER_VERSION = "3"
NO_OPTION = "Z"  # VLMEvalKit's letter for "none of the options"
NO_ANSWER = frozenset(
    [
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
BY_VLMEVALKIT = "vlmevalkit"  # the kind of replies that VLMEvalKit's own code reads
LONGEST_ANSWER = 200  # characters; a longer text is no extracted answer
LABEL = re.compile(
    r"^\W*(?:here(?:['’]s|\s+is)\s+)?(?:(?:the\s+)?(?:extracted|model|final|short|correct)?\s*(?:answer|option|choice)|(?:your\s+)?output|judg?e?ment)"
    r"\W*?(?:\s+is\b\s*[:：]?|\s*[:：=])\s*",
    re.IGNORECASE,
)
PART = re.compile(r"\W*[^\W\d_][\w ]{0,30}[:=]\s*\S")  # one line of a multi-line answer: `Domain: (-3, 3]`
# A number that is not part of another number or of `2.5cm`, `1,000km`, `3,4`.
NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)(?:[eE][-+]?\d+)?(?![.,]?\w|\s*%)")
CONTROL = re.compile(r"<\|\w+\|>")  # tokens of chat templates that a server left in the text
EXTRACTIONS = ("answer", "integer", "float")  # readers that accept any short text or number
REFUSAL = re.compile(
    r"^\W*(?:certainly|sure|of course)\b(?![\s\S]*[:：]\s*\S)|\b(?:do not|don['’]?t) know\b|\bi need\b|"
    r"抱歉|对不起|无法|不能回答|"
    r"\bsorry\b|\bapologi[sz]e\b|\bas an? (?:ai|assistant|(?:large )?language model)\b|"
    r"\b(?:can(?:not|['’]?t)|could(?: not|n['’]?t)|unable to|not able to|won['’]?t|will not)\s+(?:\w+\s+)?"
    r"(?:help|assist|comply|answer|provide|process|extract|fulfil|respond|discuss|judge|evaluate|compare|find)|"
    r"\bplease provide\b|\b(?:could|can) you\b|\bhelp you\b",
    re.IGNORECASE,
)
ERROR = re.compile(
    r"<\s*/?\s*(?:!doctype|html|head|body|title|h\d|div|script)\b|[\"']error[\"']\s*:|failed to obtain answer|"
    r"\b(?:bad gateway|service unavailable|internal server error|too many requests|rate limit|traceback)\b",
    re.IGNORECASE,
)
NEGATION = re.compile(r"\b(?:reject|dismiss|avoid|except|never|none|against)\w*\b", re.IGNORECASE)
SCALED = re.compile(r"√|\\sqrt|\b(?:hundred|thousand|million|billion|dozen)s?\b", re.IGNORECASE)
MINUS_WORD = re.compile(r"\b(?:minus|negative)\b", re.IGNORECASE)
LETTER = re.compile(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])")
WRAPPING = " \t*_`\"'“”‘’<>[]().,;:$"


class JudgeReason(Reason):
    """Why a judge left an answer undecided."""

    UNSURE = "judge unsure"
    NONSENSE = "judge gave no verdict"
    ECHO = "judge repeated its instructions"
    REFUSED = "judge refused, or replied with an error"
    EMPTY = "judge's reply is empty"
    ONLY_REASONING = "judge replied only in its reasoning"
    FILTERED = "judge stopped by a content filter"
    PASSED_OVER = "judge's reply may have been passed over by VLMEvalKit"
    CUT_OFF = "judge cut off"
    FAILED = "judge failed"
    BUDGET = "judge budget used up"


class ParsedReply(NamedTuple):
    """The value of a judge's reply; None with a reason if the reply has no clear value."""

    value: str | None
    reason: str = ""


ReplyReader = Callable[[str, str], ParsedReply]  # (reply, finish reason) -> parsed reply


def read_verdict(
    reply: str,
    finish_reason: str,
    question: str,
    golds: Sequence[str],
    prediction: str,
    words: tuple[str, str] = WORDS,
) -> Decision:
    """Return the verdict in a reply to `judge_messages`; `words` are those for right and wrong.

    A verdict is a line of its own with the right code; case and markup such as `**` do not matter, and reasoning in
    think tags is not read. It is undecided if no line is a verdict, if several contradict each other, or if the reply
    repeats the lines of the prompt that list the possible verdicts.
    """
    visible, reason = _visible(reply, finish_reason)
    if reason:
        return Decision(Verdict.UNDECIDED, "judge", reason)
    code = code_of(question, golds, prediction)
    # The verdict needs a line of its own. re.ASCII keeps look-alike letters from matching.
    verdicts = {words[0]: Verdict.RIGHT, words[1]: Verdict.WRONG, "UNSURE": Verdict.UNDECIDED}
    line = rf"^[\W_]*VERDICT\W+{code}\W*[:=\uff1a][\W_]*({'|'.join(verdicts)})[\W_]*$"
    verdict_line = re.compile(line, re.IGNORECASE | re.ASCII | re.MULTILINE)
    said = {word.upper() for word in verdict_line.findall(visible)}
    if not said:
        return Decision(Verdict.UNDECIDED, "judge", JudgeReason.NONSENSE)
    lines = [text for text in map(_words, visible.splitlines()) if text]
    if len(said) > 1 or _repeats_instructions(lines, code, words):
        return Decision(Verdict.UNDECIDED, "judge", JudgeReason.ECHO)
    verdict = verdicts[said.pop()]
    return Decision(verdict, "judge", JudgeReason.UNSURE if verdict is Verdict.UNDECIDED else "")


def vlm_reader(kind: str, choices: Mapping[str, str]) -> ReplyReader:
    """Return the parser of replies to one of VLMEvalKit's judge prompts.

    Args:
        kind: a key of `VLM_READERS`; the scoring functions in `worker/row_scores.py` say which one they need.
        choices: option letter -> text; empty for a question without options.
    """

    def read(reply: str, finish_reason: str) -> ParsedReply:
        visible, reason = _visible(reply, finish_reason)
        if reason:
            return ParsedReply(None, reason)
        if kind in EXTRACTIONS and _is_refusal(visible):
            return ParsedReply(None, JudgeReason.REFUSED)
        value = VLM_READERS[kind](visible.strip(), choices)
        return ParsedReply(value, "" if value is not None else JudgeReason.NONSENSE)

    return read


def _visible(reply: str, finish_reason: str) -> tuple[str, str]:
    """Return the reply without its reasoning, and why it decides nothing; "" if it may decide."""
    visible, reasoning = remove_reasoning(CONTROL.sub("", reply))
    if finish_reason == "content_filter":
        return visible, JudgeReason.FILTERED
    if finish_reason == "length" or reasoning == "unclosed":
        return visible, JudgeReason.CUT_OFF
    return visible, "" if visible.strip() else JudgeReason.EMPTY


def _words(line: str) -> str:
    """Return the words of a line in lower case, without marks of lists, quotes or bold text."""
    return " ".join(re.findall(r"\w+", line)).lower()


def _is_content(character: str) -> bool:
    """Return whether a character can be an answer: a letter, a digit, or a symbol such as `>` or `∅`."""
    return character.isalnum() or (unicodedata.category(character) in ("Sm", "So") and character != "\ufffd")


def _repeats_instructions(lines: Sequence[str], code: str, words: tuple[str, str]) -> bool:
    """Return whether lines hold the instructions of the prompt, in which a verdict is one of several choices.

    Args:
        lines: lines of the reply as `_words` returns them.
    """
    instructions = list(map(_words, verdict_instructions(code, words=words)))
    verdicts = {instructions[1], instructions[3]}
    first = {_words(verdict_instructions(code, text)[0]) for text in (COMPARE, CHECK, CHOOSE)}
    if not {*first, instructions[4], *(f"or {verdict}" for verdict in verdicts)}.isdisjoint(lines):
        return True
    return any("or" in pair and not verdicts.isdisjoint(pair) for pair in pairwise(lines))


def _is_refusal(text: str) -> bool:
    """Return whether a reply is a refusal, an error page, or talk around an answer that is missing.

    >>> _is_refusal("I'm sorry, I can't help."), _is_refusal("<html>502</html>"), _is_refusal("cannot be determined")
    (True, True, False)
    """
    answer = _labelled(text) or text
    if _is_no_answer(answer):
        return False
    unfinished = answer.rstrip(' \t*`"').endswith((":", "?")) or not any(map(_is_content, answer))
    return unfinished or bool(REFUSAL.search(text) or ERROR.search(text))


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
    text = re.sub(r"[-−–]\s*\$?\s*(?=[\d.])", "-", text)
    if SCALED.search(text):
        return None
    numbers = {float(number.replace(",", "")) for number in NUMBER.findall(text)}
    if len(numbers) != 1 or re.search(r"\d", NUMBER.sub("", text)) or MINUS_WORD.search(text) or _has_negation(text):
        return None
    number = numbers.pop()
    if not math.isfinite(number):
        return None
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


def _whole(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return the whole reply, which VLMEvalKit's own code reads, unless it is an error page."""
    return None if ERROR.search(reply) else reply.encode(errors="replace").decode()  # VLMEvalKit writes it to a file


VLM_READERS: dict[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "answer": _answer,
    "integer": _integer,
    "float": _float,
    "letter": _letter,
    "option": _option,
    "letters": _letters,
    "binary": _binary,
    BY_VLMEVALKIT: _whole,
}
