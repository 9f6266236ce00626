"""Option letters of multiple-choice questions."""

import re
from collections.abc import Sequence

from rlfr_vlm.grading.normalise import compact, fold, strip_ends, unwrap

LETTERS = "ABCDEFGHIJ"
# (B)  B  B.  B)  B:  [B]  option B  — and behind a mark, the option's own text
LETTER = re.compile(
    r"^(?:option|choice|选项|选|answer)?\s*[\[(]?\s*([A-Ja-j])\s*(?:[\])]\s*[.:]?|[.:])?\s*$", re.IGNORECASE
)
LETTER_WITH_TEXT = re.compile(r"^(?:option|choice)?\s*(?:\(\s*([A-J])\s*\)|([A-J])\s*[.):])\s*\S", re.IGNORECASE)
# Behind a letter's mark: a joint, another marked letter, or nothing but another letter.
SEVERAL = re.compile(
    r"(?:\(\s*[A-Ja-j]\s*\)|(?<!\w)[A-J]\s*[.):](?!\d)|[.):] *[A-J]\s*$)|[.)] *(?:,|/|&|and\b|or\b|和|或)"
)


def option_letter(text: str) -> str | None:
    r"""The letter, if the text is one in any of its usual spellings, alone or before its option's text.

    >>> option_letter("(B)"), option_letter(r"\text{B}"), option_letter("B) 12"), option_letter("Area")
    ('B', 'B', 'B', None)
    """
    if len(text) == 1:
        return text.upper() if text.upper() in LETTERS else None
    plain = strip_ends(unwrap(fold(text[:500])))
    if found := LETTER.match(plain):
        return found[1].upper()
    found = LETTER_WITH_TEXT.match(plain)
    if found is None or SEVERAL.search(plain, max(found.span(1)[1], found.span(2)[1])):
        return None
    return (found[1] or found[2]).upper()


def option_text(letter: str, options: Sequence[str]) -> str | None:
    """The text of an option, without its own mark; None when there is no such option."""
    index = LETTERS.index(letter)
    if index >= len(options):
        return None
    return re.sub(rf"^\s*\(?{letter}[.):]\s*", "", str(options[index]))


def option_of_text(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that reads like `text`; None when none or several do."""
    wanted = compact(fold(text)).casefold()
    letters = [
        letter
        for letter, _ in zip(LETTERS, options, strict=False)
        if compact(fold(option_text(letter, options) or "")).casefold() == wanted
    ]
    return letters[0] if len(letters) == 1 else None
