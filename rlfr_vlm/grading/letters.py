"""Option letters of multiple-choice questions."""

import re
from collections.abc import Sequence

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


def option_letter(text: str) -> str | None:
    r"""Return the option letter that a text names, alone or before the option's text; None for other text.

    >>> option_letter("(B)"), option_letter(r"\text{B}"), option_letter("B) 12"), option_letter("Area")
    ('B', 'B', 'B', None)
    """
    if len(text) == 1:
        return text.upper() if text.upper() in LETTERS else None
    plain = strip_ends(unwrap(normalise(text[:500])))
    if match := LETTER.match(plain):
        return match[1].upper()
    match = LETTER_WITH_TEXT.match(plain)
    if match is None or SEVERAL.search(plain, max(match.span(1)[1], match.span(2)[1])):
        return None
    return (match[1] or match[2]).upper()


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
