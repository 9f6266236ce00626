"""Read what a judge replies to VLMEvalKit's prompts. Strictly: what cannot be read for certain is undecided.

VLMEvalKit takes the whole reply for the answer, so "Extracted answer: 14" is wrong there, and a reply that names no
option becomes a random one. Here a reply becomes the one thing that was asked for, "" where it clearly says that there
is none, or nothing.
"""

import re
from collections.abc import Callable, Mapping

from rlfr_eval.judge.client import Reading
from rlfr_eval.judge.prompt import JudgeReason
from rlfr_vlm.grading.extract import DISCARDED, remove_reasoning

# raised whenever a reply is read otherwise than before: verdicts that hang on another version are reached again
READER = "2"
NONE = "Z"  # VLMEvalKit's letter for "no option"
NOTHING = frozenset(["", "none", "n/a", "na", "null", "no answer", "not provided", "not found", "not given", "unknown",
                     "cannot be determined", "cannot determine", "no answer found", "no answer provided"])  # fmt: skip
LONGEST_ANSWER = 200  # characters; an extracted answer is short
LABEL = re.compile(
    r"^\W*(?:(?:the\s+)?(?:extracted|model|final|short|correct)?\s*(?:answer|option|choice)|(?:your\s+)?output|judg?e?ment)"
    r"\W*?(?:\s+is\b\s*[:：]?|\s*[:：=])\s*",
    re.IGNORECASE,
)
PART = re.compile(r"\W*[^\W\d_][\w ]{0,30}[:=]\s*\S")  # of an answer of several lines: `Domain: (-3, 3]`
# neither a part of another number nor of `2.5cm`, `1,000km`, `3,4`
NUMBER = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)(?:[eE][-+]?\d+)?(?![.,]?\w|\s*%)")
DENYING = re.compile(r"\b(?:reject|dismiss|avoid|except|never|none|against)\w*\b", re.IGNORECASE)
NEGATIVE = re.compile(r"\b(?:minus|negative)\b", re.IGNORECASE)
LETTER = re.compile(r"(?<![A-Za-z'])([A-Z])(?![A-Za-z'])")
WRAPPING = " \t*_`\"'“”‘’<>[]().,;:$"


def reader(reads: str, choices: Mapping[str, str]) -> Callable[[str, str], Reading]:
    """How to read a reply of this kind; see `worker/known.py` for the kinds."""

    def read(reply: str, finish_reason: str) -> Reading:
        visible, reasoning = remove_reasoning(reply)
        if finish_reason == "length" or reasoning == "unclosed":
            return Reading(None, JudgeReason.CUT_OFF)
        value = READERS[reads](visible.strip(), choices)
        return Reading(value, "" if value is not None else JudgeReason.NONSENSE)

    return read


def _labelled(reply: str) -> str | None:
    """What answers: the last line with a label and all that follows it, or the only line; None in a longer text."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    for place in reversed(range(len(lines))):
        match = LABEL.match(lines[place])
        if match and match.end() < len(lines[place]):
            return "\n".join([lines[place][match.end() :].strip(), *lines[place + 1 :]])
    return lines[0] if len(lines) == 1 else None if lines else ""


def _denies(text: str) -> bool:
    """Whether what it names may be what it does not mean."""
    return bool(DISCARDED.search(text) or DENYING.search(text))


def _says_nothing(text: str) -> bool:
    return text.strip(WRAPPING).lower() in NOTHING


def _answer(reply: str, choices: Mapping[str, str]) -> str | None:
    """A short answer, as it stands; of several lines only where each is a part of it.

    >>> _answer("Extracted answer: 14", {}), _answer("**3/4**", {}), _answer("Well.\\nIt may be 3 or 4.", {})
    ('14', '3/4', None)
    """
    text = _labelled(reply)
    text = reply if text is None else text
    lines = text.splitlines()
    if len(text) > LONGEST_ANSWER or (len(lines) > 1 and not all(map(PART.match, lines))):
        return None
    if _says_nothing(text):
        return ""
    return None if text.lower().startswith("not ") else text.strip(' \t*`"')


def _number(reply: str, whole: bool) -> str | None:
    text = _answer(reply, {})
    if text is None or text == "":
        return text
    numbers = {float(number.replace(",", "")) for number in NUMBER.findall(text)}
    if len(numbers) != 1 or re.search(r"\d", NUMBER.sub("", text)) or NEGATIVE.search(text) or _denies(text):
        return None
    number = numbers.pop()
    return str(int(number)) if number.is_integer() and whole else repr(number)


def _integer(reply: str, choices: Mapping[str, str]) -> str | None:
    """The one number of a reply, a whole one without a fraction.

    >>> _integer("14.0", {}), _integer("The answer is 14 apples", {}), _integer("3 or 4", {})
    ('14', '14', None)
    """
    return _number(reply, whole=True)


def _float(reply: str, choices: Mapping[str, str]) -> str | None:
    return _number(reply, whole=False)


def _letter(reply: str, choices: Mapping[str, str]) -> str | None:
    """The one option that a reply names by its letter or its text, or `Z` for none of them.

    >>> _letter("**B**", {"A": "", "B": ""}), _letter("A or B", {"A": "", "B": ""}), _letter("Z", {"A": ""})
    ('B', None, 'Z')
    """
    text = _labelled(reply)
    text = reply if text is None else text
    bare = text.strip(WRAPPING)
    known = {*choices, NONE}
    if len(bare) == 1:
        return bare.upper() if bare.upper() in known else None
    if _says_nothing(text):
        return NONE
    same = [letter for letter, option in choices.items() if option.strip().lower() == text.strip().lower()]
    if len(same) == 1:
        return same[0]
    if _denies(text):
        return None
    found = {letter for letter in LETTER.findall(text) if letter in known}
    if opening := re.match(r"\W*([A-Z])\s*[.):]\s", text):  # an option with its text: `B. 8/11`
        return opening[1] if found == {opening[1]} else None
    # "A" and "I" are words, too
    sure = found - {"A", "I"} or (
        found if re.search(r"(?:option|answer|choice)\W+(?:is\W+)?A\b", text, re.I) else set()
    )
    return sure.pop() if len(sure) == 1 and len(found) == 1 else None


def _option(reply: str, choices: Mapping[str, str]) -> str | None:
    """An option's letter, or its text; "" for none.

    >>> _option("8/11", {"A": "3/11", "B": "8/11"}), _option("(B) 8/11", {"A": "3/11", "B": "8/11"})
    ('B', 'B')
    """
    letter = _letter(reply, choices)
    return "" if letter == NONE else letter


def _letters(reply: str, choices: Mapping[str, str]) -> str | None:
    """Different option letters without anything between; `Z` for none.

    >>> _letters("A, D", {}), _letters("Your output: B", {}), _letters("ERROR", {})
    ('AD', 'B', None)
    """
    text = _labelled(reply)
    if text is None:
        return None
    if _says_nothing(text):
        return NONE
    bare = re.sub(r"[\s,;&*().\"'`]|\band\b", "", text)
    return bare if re.fullmatch(r"[A-H]+|Z", bare) and len(set(bare)) == len(bare) else None


def _binary(reply: str, choices: Mapping[str, str]) -> str | None:
    """0 or 1.

    >>> _binary("Judgement: 1", {}), _binary("1", {}), _binary("0 or 1", {}), _binary("10", {})
    ('1', '1', None, None)
    """
    text = (_labelled(reply) or "").strip(WRAPPING)
    return text if text in ("0", "1") else None


READERS: dict[str, Callable[[str, Mapping[str, str]], str | None]] = {
    "answer": _answer,
    "integer": _integer,
    "float": _float,
    "letter": _letter,
    "option": _option,
    "letters": _letters,
    "binary": _binary,
}
