"""Normalise the spelling of answers: full-width characters, LaTeX wrappers, spacing, punctuation.

Every function takes time linear in the length of the text.
"""

import re
import unicodedata
from functools import lru_cache

from rlfr_vlm.grading.characters import SUBSCRIPT, SUBSCRIPTS, SUPERSCRIPT, SUPERSCRIPTS, SYMBOLS

RENAMED = (
    (re.compile(r"\\[dtc]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(?:left|right|bigl?|bigr|Bigl?|Bigr|displaystyle|textstyle|limits)(?![a-zA-Z])\s?"), ""),
    (re.compile(r"\\(?:leqslant|leq)(?![a-zA-Z])"), r"\\le"),
    (re.compile(r"\\(?:geqslant|geq)(?![a-zA-Z])"), r"\\ge"),
    (re.compile(r"\\langle(?![a-zA-Z])\s*"), "⟨"),
    (re.compile(r"\s*\\rangle(?![a-zA-Z])"), "⟩"),
    (re.compile(r"\\(?:lbrace)(?![a-zA-Z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![a-zA-Z])"), r"\\}"),
    (re.compile(r"\\+(?:lt|gt)(?![a-zA-Z])\s?"), lambda match: "<" if "lt" in match[0] else ">"),
    (re.compile(r"\\neq?(?![a-zA-Z])|\\not\s*="), r"\\ne "),
    (re.compile(r"\\mathbb\s*(?:\{\s*([RZQNC])\s*\}|([RZQNC])(?![a-zA-Z]))"), r"\\mathbb{\1\2}"),
    (re.compile(r"(?<=\d),\s*\\!\s*(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<=\d)(?:\\[,!]|\{,\})\s*(?=\d{3}(?!\d))"), ","),
    (re.compile(r"(?<!\\)\\(?:[,;:!> ]|quad(?![a-zA-Z])|qquad(?![a-zA-Z]))|~"), " "),
    (re.compile(r"(?<!\\)\\(?=[%$#€])"), ""),
    (re.compile(r"\$(?![\s$])([^$]*[^$\s+*/=,(-])\$(?!\d)"), r"\1"),  # formulas inside a text
    (re.compile(r"\^\s*\{\s*\\circ\s*\}"), r"^\\circ"),
    (re.compile(r"\\degree(?:s)?(?![a-zA-Z])"), r"^\\circ"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?![\d}])"), r"\\frac{\1}{\2}"),
    (re.compile(r"√\s*(\d+|[a-zA-Z]|\([^()]*\))"), r"\\sqrt{\1}"),
    (re.compile(r"\\varnothing(?![a-zA-Z])|\\\{\s*\\\}"), r"\\emptyset"),
    (re.compile(r"(?<![a-zA-Z\\])infinity(?![a-zA-Z])", re.IGNORECASE), r"\\infty "),
    (re.compile(r"\\sqrt\s*(\d)(?!\d)"), r"\\sqrt{\1}"),
)
DOUBLE_ESCAPED = re.compile(r"\\\\(?=[a-zA-Z]{2}|[{}()%$#!,;])")  # a gold from JSON that was escaped twice
WRAPPER = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|textsf|texttt|emph|mathrm|mathbf|mathit|mathsf|boldsymbol|mbox|hbox"
    r"|operatorname)\s*\{"
)
EMPHASIS = ("**", "__", "```", "`", "*", '"', "'")
MAX_LAYERS = 8  # of delimiters around an answer
END_PUNCTUATION = ".,;:。 \t\n"


@lru_cache(maxsize=4096)  # responses of a group share their gold, and many give the same answer
def normalise(text: str) -> str:
    """Return the text in one spelling, with its LaTeX. Rules and algebra both read this form.

    >>> normalise("\\uff08\\uff11\\uff0c\\uff12\\uff09")
    '(1,2)'
    >>> normalise(r"$\\dfrac12$.")
    '\\\\frac{1}{2}'
    """
    text = text.replace("\x00", "")
    if text.isascii() and "\\" not in text and "~" not in text and "$" not in text and "infinity" not in text.lower():
        return strip_ends(" ".join(text.split()))
    if not text.isascii():
        text = SUPERSCRIPT.sub(lambda match: "^{" + match[0].translate(SUPERSCRIPTS) + "}", text)
        text = SUBSCRIPT.sub(lambda match: "_{" + match[0].translate(SUBSCRIPTS) + "}", text)
        text = "".join(SYMBOLS.get(c) or ("" if c in SYMBOLS else c) for c in text)
        text = unicodedata.normalize("NFKC", text)
    if "\\\\" in text and "\\begin" not in text:
        text = DOUBLE_ESCAPED.sub(r"\\", text)
    for pattern, replacement in RENAMED:
        text = pattern.sub(replacement, text)
    return strip_ends(" ".join(text.split()))


def strip_ends(text: str) -> str:
    """Strip surrounding space, math delimiters, Markdown emphasis and final punctuation."""
    for _ in range(MAX_LAYERS):
        before = text
        text = text.strip().rstrip(END_PUNCTUATION)
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
            inner = text[len(opening) : -len(closing)]
            if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
                text = text if opening in inner else inner
        for mark in EMPHASIS:
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        if text.startswith("{") and text.endswith("}") and matching_brace(text, 0) == len(text) - 1:
            text = text[1:-1]
        if text == before:
            break
    return text


def matching_brace(text: str, opening: int) -> int:
    """Return the position of the brace that closes the one at `opening`, or -1. Escaped braces are ignored."""
    depth = 0
    for position in range(opening, len(text)):
        if position and text[position - 1] == "\\":
            continue
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    return -1


def unwrap(text: str) -> str:
    r"""Replace `\text{...}` and similar commands by their content.

    >>> unwrap(r"5\text{ cm}")
    '5 cm'
    """
    pieces, position = [], 0
    while match := WRAPPER.search(text, position):
        end = matching_brace(text, match.end() - 1)
        if end < 0:
            break
        pieces += [text[position : match.start()], _unwrap_inner(text[match.end() : end])]
        position = end + 1
    return "".join([*pieces, text[position:]])


def _unwrap_inner(text: str) -> str:
    """Remove nested wrappers without recursion, so that deeply nested text stays cheap."""
    return WRAPPER.sub("", text).replace("}", "") if WRAPPER.search(text) else text


@lru_cache(maxsize=4096)
def compact(text: str) -> str:
    """Remove wrappers and spaces, except a space between two digits, which may be a mixed fraction."""
    return re.sub(r"(?<!\d) | (?!\d)", "", strip_ends(unwrap(text).replace("\t", " "))).strip()


def balanced(text: str) -> bool:
    """Return whether all braces are balanced. Escaped braces are ignored."""
    depth = 0
    for position, character in enumerate(text):
        if position and text[position - 1] == "\\":
            continue
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0
