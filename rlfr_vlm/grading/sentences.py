"""Find the value that a text around an answer states: `Answer: 9`, `The largest n is 34`, `x = 2 \\approx 2.0`."""

import re

from rlfr_vlm.grading.answer_parts import top_level
from rlfr_vlm.grading.extract import DASH, DISCARDED
from rlfr_vlm.grading.normalise import strip_ends, unwrap

LEAD_IN = re.compile(
    r"^(?:(?:therefore|thus|hence|so|then|finally|in conclusion)\s*,?\s+)?"
    r"(?:(?:the|my|our)\s+)?(?:final\s+|correct\s+)*(?:answers?|results?|solutions?|ans|答案)\s*"
    r"(?:(?:is|are|=|是|为)\s*[:：,;]?|[:：])?\s+|"
    r"^答案\s*[是为]?\s*[:：]?\s*|^(?:therefore|thus|hence|so)\s*,?\s+",
    re.IGNORECASE,
)
CONCLUSION = re.compile(
    r"^(?:we\s+(?:find|get|have|obtain|conclude)\s+(?:that\s+)?|it\s+follows\s+that\s+)(.+)$|"
    r"^there\s+(?:is|are)\s+(?:exactly\s+)?(\d\S*(?:\s+.+)?)$|"
    r"^(.+?)\s+is\s+(?:the|our)\s+(?:final\s+|correct\s+)?(?:answer|solution|result)$",
    re.IGNORECASE,
)
STATEMENT = re.compile(r"\s(?:is|are|equals|equal\s+to|will\s+be|be|was|were)\s+(?:exactly\s+|equal\s+to\s+)?")
COMMAND = re.compile(r"\\[a-zA-Z]+")
WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{2,}(?![A-Za-z])")
APPROXIMATELY = re.compile(r"\\approx(?![a-zA-Z])|≈|\\simeq(?![a-zA-Z])|\\doteq(?![a-zA-Z])")
HINT = re.compile(r"answer|ans\b|result|solution|答案", re.IGNORECASE)
MAX_STATEMENT = 500  # characters
RELATION = re.compile(r"[=<>]")
VALUE = re.compile(r"[\d\\]|^[A-Za-z]$")  # what a sentence states: a number, a formula or a letter
MIN_WORDS = 2  # before the verb of a sentence


def without_lead_in(text: str) -> str:
    """Return the text after `The answer is` or `Final answer:`; the text itself if it has no such words, or no rest.

    >>> without_lead_in("Final answer: (B)"), without_lead_in("the answer is not 7")
    ('(B)', 'the answer is not 7')
    """
    if not HINT.search(text[:60]) or DISCARDED.search(text[:MAX_STATEMENT]):
        return text
    rest = LEAD_IN.sub("", text.strip(), count=1).strip()
    return rest if re.search(r"\w", rest) and not _has_dash(rest, text) else text


def _has_dash(rest: str, text: str) -> bool:
    """Return whether the rest of a text after its lead-in begins with a dash, which may be a minus sign."""
    return rest != text.strip() and DASH.match(rest) is not None


def stated_value(text: str) -> str | None:
    r"""Return the value that a sentence or a lead-in states; None if the text has neither, or denies the value.

    >>> stated_value("The largest $n$ is 34"), stated_value("Answer: 9"), stated_value("x is not 3")
    ('34', '9', None)
    """
    plain = text.strip()
    if not (LEAD_IN.match(plain) or STATEMENT.search(plain) or CONCLUSION.match(plain)):
        return None
    if DISCARDED.search(plain):
        return None
    without = LEAD_IN.sub("", plain)
    if _has_dash(without.strip(), plain):
        return None
    if conclusion := CONCLUSION.match(without):
        return strip_ends(next(group for group in conclusion.groups() if group))
    statements = list(STATEMENT.finditer(without))
    if statements:
        before = COMMAND.sub(" ", unwrap(without[: statements[-1].start()]))
        if RELATION.search(before):
            return None
        if len(WORD.findall(before)) < MIN_WORDS - (without[:4].lower() == "the "):
            return None
        without = without[statements[-1].end() :]
    value = strip_ends(without)
    return value if VALUE.search(value) and value != strip_ends(plain) else None


def approximated(text: str) -> list[str]:
    r"""Return the members of `a \approx b`; the text alone if it has no such sign outside brackets."""
    match = APPROXIMATELY.search(text)
    if (
        match is None
        or top_level(text, ",;")
        or APPROXIMATELY.search(text, match.end())
        or not text[: match.start()].strip()
    ):
        return [text]
    if top_level(text[: match.start()] + "," + text[match.end() :], ",").count(match.start()) == 0:
        return [text]
    return [text[: match.start()].strip(), text[match.end() :].strip()]
