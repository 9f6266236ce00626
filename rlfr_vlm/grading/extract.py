"""Extract the final answer from a response: remove the reasoning, then look for boxes, tags, phrases and letters.

Every function takes time linear in the length of the response.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from rlfr_vlm.grading.letters import LETTERS

BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
BRACE = re.compile(r"\\[{}\\]|[{}]")
# Between two boxes that form a list: a comma or conjunction, math delimiters, and the name of the next value.
JOINT = re.compile(
    r"\s*(?:\$|\\\)|\\\])?\s*(?:[,;，；、]\s*(?:and\b|or\b|\\quad)?|\band\b|\bor\b|和|或|\\text\s*\{\s*(?:and|or)\s*\})"
    r"\s*(?:\$|\\\(|\\\[)?\s*(?:\\?[a-zA-Z]\w*(?:_\{\w+\})?\s*=\s*)?"
)
JOINT_LENGTH = 60  # characters
TAG_OPEN, TAG_CLOSE = "<answer>", "</answer>"
THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
PHRASE = re.compile(
    r"(?:\b(?:final\s+)?answer\b[*_\s]{0,6}(?:is\b|:|=|：)|\bfinal\s+answer\b[*_:：\s]{0,6}\n|答案[*\s]{0,4}(?:是|为|：|:))"
    r"(?![\s,;:，；：]*not\b)[*_]{0,3}(?:(?P<comma>[,，]\s*(?:(?:however|of course|in fact|indeed|then|therefore|thus"
    r"|hence|finally|again|clearly|obviously)(?:[,，]|(?=[:：])))?)|[;；])?\s*[:：]?\s*",
    re.IGNORECASE,
)
DETACHED = re.compile(r"^(?:[,;:，；：]\s+)+")  # punctuation before an answer; `,5` may be a decimal
ADVERB = re.compile(r"^(?:indeed|therefore|thus|then|hence)\s+", re.IGNORECASE)
ASIDE_OR_LIST = re.compile(r"^[A-Za-z]{2,}[A-Za-z ]*[,，]")
DASH = re.compile(r"^[*_]*(?:—|--|[-–]\s)")  # a dash, a bullet or a minus sign; `-5` has a minus sign
# Words may stand before a formula, but no factor or sign: `x = $5$`, not `-$5$` or `3$x$`. `\$` is a dollar.
MATH = re.compile(r"^(?:[^$\n]{0,19}?[^$\n\s\d+\-–—−/^×·\\])?\s*\$((?:\\.|[^$\\\n]){1,500})\$")
# A displayed formula on lines of its own: `$$`, a line break, the formula, `$$`.
DISPLAY = re.compile(r"^(?:\$\$[ \t]*\n([^$]{1,500}?)\$\$|\\\[[ \t]*\n((?:[^\\]|\\[^\]]){1,500}?)\\\])")
END_OF_PHRASE = re.compile(r"\n|。|\.(?=\s|$)|\s(?:because|since|which|where|so that|as we)\b|，因为", re.IGNORECASE)
PHRASE_LENGTH = 600  # characters of an answer after a phrase
MARKED = rf"\*{{0,2}}\s*\(?([{LETTERS}])\)?[.:)]?\s*\*{{0,2}}"
ALONE = re.compile(rf"^\s*(?:(?:[Oo]ption|[Cc]hoice|选项?|选择)\s*)?{MARKED}\s*[.。]?\s*$")
# A conclusion directly followed by a letter: "the answer must be (D)", "I choose B", "it is A".
CONCLUSION = re.compile(
    rf"\b(?:is|be|choose|chose|pick|select|answer|option|choice)\b\s*:?\s*(?:option\s+|choice\s+)?{MARKED}(?!\w)\s*$|"
    rf"(?:选项?|选择|答案是?)\s*([{LETTERS}])(?!\w)"
)
LETTERS_WITHIN = 2000  # characters at the end of a response that are searched for a letter
DISCARDED = re.compile(
    r"\b(?:not|no|isn't|wrong|incorrect|false|eliminate[sd]?|rule[sd]?\s+out|discard(?:ed|s)?|exclude[sd]?|instead\s+of|"
    r"rather\s+than|unlike|neither|nor|cannot|if)\b|n't\b|排除|错误|不是|不对",
    re.IGNORECASE,
)
# CLAUSE separates statements. ASIDE matches the part after "since" or ", not", which is not a conclusion.
CLAUSE = re.compile(r"[;!?。；！？]|\.(?=\s|$)|\b(?:but|so|hence|therefore|thus)\b", re.IGNORECASE)
ASIDE = re.compile(r",?\s+(?:since|because|as|rather)\b.*$|,\s*not\b.*$|，(?:因为|而不是).*$", re.IGNORECASE)


class Box(NamedTuple):
    """Positions of a box: of its command, its opening and its closing brace."""

    start: int
    opening: int
    end: int


@dataclass(frozen=True)
class Extraction:
    """The final answer of a response and where it was found.

    Attributes:
        raw: the unchanged response.
        visible: the response without its reasoning.
        answer: the final answer; None if there is none.
        how: `boxed`, `tag`, `phrase`, `letter` or `none`; `given` if the answer was extracted by the caller.
        reasoning: `none`, `closed`, or `unclosed` if the response ended inside its reasoning.
    """

    raw: str
    visible: str
    answer: str | None
    how: str
    reasoning: str


def extract(response: str, *, letters: bool = False) -> Extraction:
    """Extract the final answer.

    Args:
        response: the full response, including reasoning.
        letters: also search plain text for an option letter, for multiple-choice questions.
    """
    visible, reasoning = remove_reasoning(response)
    answer, how = _boxed_or_tagged(visible)
    if answer is None:
        answer, how = _after_phrase(visible), "phrase"
    if answer is None and letters:
        answer, how = _letter(visible), "letter"
    return Extraction(response, visible, answer, "none" if answer is None else how, reasoning)


def remove_reasoning(response: str) -> tuple[str, str]:
    """Return the text after the reasoning, and whether the reasoning is `none`, `closed` or `unclosed`.

    >>> remove_reasoning("<think>hm</think>7"), remove_reasoning("<think>hm")
    (('7', 'closed'), ('', 'unclosed'))
    """
    end, start = response.rfind(THINK_CLOSE), response.rfind(THINK_OPEN)
    if start > end:
        return response[: response.find(THINK_OPEN)] if end < 0 else "", "unclosed"
    if end >= 0:  # the opening tag may have been part of the prompt
        return response[end + len(THINK_CLOSE) :], "closed"
    return response, "none"


def _boxed_or_tagged(text: str) -> tuple[str | None, str]:
    """Return the content of the last box or answer tag. A box inside the tag takes precedence."""
    box = _answer_of_boxes(text)
    start = text.rfind(TAG_OPEN)
    if start < 0 or (box is not None and box[0] > start):
        return (box[1], "boxed") if box else (None, "none")
    inner = DETACHED.sub("", text[start + len(TAG_OPEN) :].split(TAG_CLOSE)[0].strip())
    return inner or None, "tag"


def last_boxed(text: str) -> str | None:
    """Return the content of the last balanced `\\boxed{...}` or `\\fbox{...}`; None if there is none.

    >>> last_boxed(r"first \\boxed{1}, then \\boxed{\\frac{1}{2}}")
    '\\\\frac{1}{2}'
    """
    box = _last_box(text)
    return box[1] if box else None


def _answer_of_boxes(text: str) -> tuple[int, str] | None:
    r"""Return position and content of the last box, or of several that form a list: `\boxed{1} and \boxed{2}`."""
    boxes = _boxes(text)
    if not boxes:
        return None
    first = len(boxes) - 1
    while first and JOINT.fullmatch(text[boxes[first - 1].end + 1 : boxes[first].start][: JOINT_LENGTH + 1]):
        first -= 1
    contents = list(dict.fromkeys(text[box.opening + 1 : box.end].strip() for box in boxes[first:]))
    return boxes[-1].start, ", ".join(content for content in contents if content)


def _last_box(text: str) -> tuple[int, str] | None:
    """Return the position and content of the last balanced box."""
    boxes = _boxes(text)
    return (boxes[-1].start, text[boxes[-1].opening + 1 : boxes[-1].end].strip()) if boxes else None


def _boxes(text: str) -> list[Box]:
    """Return the balanced boxes in the order of their opening braces, in one pass over the braces."""
    starts = {match.end() - 1: match.start() for match in BOX.finditer(text)}
    if not starts:
        return []
    boxes: list[Box] = []
    opened: list[int] = []
    for match in BRACE.finditer(text, min(starts)):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            opening = opened.pop()
            if opening in starts:
                boxes.append(Box(starts[opening], opening, match.start()))
    return sorted(boxes, key=lambda box: box.opening)


def _after_phrase(text: str) -> str | None:
    """Return the text after the last "the answer is", up to the end of the sentence; None if it cannot be told.

    A dash before the answer may be a minus sign, and words between two commas an aside or part of a list.
    """
    phrases = list(PHRASE.finditer(text))
    if not phrases:
        return None
    end = phrases[-1].end()
    rest = DETACHED.sub("", text[end : end + PHRASE_LENGTH].lstrip())
    if DASH.match(rest) or (phrases[-1]["comma"] and ASIDE_OR_LIST.match(rest)):
        return None
    rest = ADVERB.sub("", rest)
    if display := DISPLAY.match(rest):
        return " ".join((display[1] or display[2]).split()) or None
    if math := MATH.match(rest):
        return math[1].strip() or None
    return END_OF_PHRASE.split(rest, maxsplit=1)[0].strip().strip("*").strip() or None


def _letter(text: str) -> str | None:
    """Return the option letter of the last conclusion; None if there is none, or if its line names several letters.

    A list of options, in which a text follows each letter, is not a conclusion.
    """
    for line in reversed(text[-LETTERS_WITHIN:].splitlines()):
        clauses = (ASIDE.sub("", clause).rstrip(", ") for clause in CLAUSE.split(line))
        letters = {letter for clause in clauses if (letter := _concluded_letter(clause))}
        if letters:
            return letters.pop() if len(letters) == 1 else None
    return None


def _concluded_letter(clause: str) -> str | None:
    if DISCARDED.search(clause):
        return None
    match = ALONE.match(clause) or CONCLUSION.search(clause)
    return next((group for group in match.groups() if group), None) if match else None
