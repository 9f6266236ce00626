"""Option letters of multiple-choice questions."""

import re
from collections.abc import Sequence
from functools import lru_cache

from rlfr_vlm.grading.normalise import compact, normalise, strip_ends, unwrap

LETTERS = "ABCDEFGHIJ"
# LETTER matches (B)  B  B.  B)  B:  [B]  option B. LETTER_WITH_TEXT matches a marked letter and the option's text.
LETTER = re.compile(
    r"^(?:option|choice|选项|选|answer)?\s*[\[(]?\s*([A-Ja-j])\s*(?:[\])]\s*[.:]?|[.:])?\s*$", re.IGNORECASE
)
LETTER_WITH_TEXT = re.compile(r"^(?:option|choice)?\s*(?:\(\s*([A-J])\s*\)|([A-J])\s*[.):])\s*\S", re.IGNORECASE)
# After a marked letter: a conjunction, another marked letter, or only another letter.
SEVERAL = re.compile(
    r"(?:\(\s*[A-Ja-j]\s*\)|(?<!\w)[A-J]\s*[.):](?!\d)|[.):] *[A-J]\s*$)|[.)] *(?:,|/|&|and\b|or\b|和|或)"
)


# GOLD_WITH_TEXT matches a capital letter with a mark and a space, so that the product (A)(B) is none.
GOLD_WITH_TEXT = re.compile(r"^(?:\(\s*([A-J])\s*\)|([A-J])[.):])\s+(\S.*)$", re.DOTALL)
SENTENCES = (
    re.compile(
        r"^(?:(?:[Ss]o|[Tt]hus|[Tt]herefore|[Hh]ence)\b\s*,?\s*)?(?:[Tt]he\s+|[Mm]y\s+)?(?:(?:correct|right|best|final)\s+)*"
        r"(?:[Aa]nswer|[Oo]ption|[Cc]hoice)\s*(?:is|:|must\s+be|should\s+be)\s*(?:option\s+|choice\s+)?[\[(]?([A-J])[\])]?$"
    ),
    re.compile(
        r"^(?:[Oo]ption\s+|[Cc]hoice\s+)?[\[(]?([A-J])[\])]?\s+is\s+(?:the\s+)?(?:correct|right|true|best)"
        r"(?:\s+(?:answer|option|choice|one))?$"
    ),
)
MARK = re.compile(r"[A-J]\s*\}*\s*[).:]")
MAX_OPTION = 500  # characters of an option with its text
SELECTED = re.compile(r"^\(?[A-J]\)?(?:\s*(?:,|;|&|/|\band\b|和)\s*(?:and\s+)?\(?[A-J]\)?)+$")
JOINED = re.compile(r"^[A-J]{2,10}$")


def option_letter(text: str) -> str | None:
    r"""Return the option letter that a text names, alone or before the option's text; None for other text.

    >>> option_letter("(B)"), option_letter(r"\text{B}"), option_letter("B) 12"), option_letter("Area")
    ('B', 'B', 'B', None)
    """
    if len(text) == 1:
        return text.upper() if text.upper() in LETTERS else None
    plain = _plain(text)
    if match := LETTER.match(plain):
        return match[1].upper()
    for sentence in SENTENCES:
        if match := sentence.match(plain):
            return match[1]
    match = LETTER_WITH_TEXT.match(plain)
    if match is None or SEVERAL.search(plain, max(match.span(1)[1], match.span(2)[1])):
        return None
    return (match[1] or match[2]).upper()


@lru_cache(maxsize=1024)
def _plain(text: str) -> str:
    return strip_ends(unwrap(normalise(text[:500])))


def option_letters(text: str) -> frozenset[str] | None:
    """Return the letters of an answer that selects several options, in ascending order or separated; else None.

    >>> option_letters("ABD") == option_letters("A, B and D"), option_letters("BA")
    (True, None)
    """
    plain = _plain(text)
    joined = JOINED.match(plain) is not None and list(plain) == sorted(set(plain))
    if not joined and not SELECTED.match(plain):
        return None
    return frozenset(re.findall(r"[A-J]", plain))


@lru_cache(maxsize=1024)
def letter_and_text(text: str) -> tuple[str, str] | None:
    """Return the letter and the text of an option such as `(D) Alina`; None for other text.

    >>> letter_and_text("(D) Alina"), letter_and_text("(A)(B)")
    (('D', 'Alina'), None)
    """
    if len(text) > MAX_OPTION or not MARK.search(text):
        return None
    plain = strip_ends(normalise(text))
    match = GOLD_WITH_TEXT.match(plain) or GOLD_WITH_TEXT.match(unwrap(plain))
    if match is None or SEVERAL.search(match[3]):
        return None
    return match[1] or match[2], match[3].strip()


def option_text(letter: str, options: Sequence[str]) -> str | None:
    """Return the text of an option without its letter; None if there is no such option."""
    index = LETTERS.index(letter)
    if index >= len(options):
        return None
    return re.sub(rf"^\s*\(?{letter}[.):]\s*", "", str(options[index]))


def option_of_text(text: str, options: Sequence[str]) -> str | None:
    """Return the letter of the option whose text equals `text`; None if no option or several options match."""
    target = compact(normalise(text)).casefold()
    letters = [
        letter
        for letter, _ in zip(LETTERS, options, strict=False)
        if compact(normalise(option_text(letter, options) or "")).casefold() == target
    ]
    return letters[0] if len(letters) == 1 else None
