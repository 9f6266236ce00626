"""Take an answer apart: lists, tuples, sets, both signs of a plus-minus, the two sides of an equation."""

import re
from itertools import pairwise

from rlfr_vlm.grading.normalise import unwrap

OPEN, CLOSE = "([{", ")]}"
CONJUNCTION = re.compile(r"\s*[,;]?\s*\\text\s*\{\s*(?:and|or)\s*\}\s*|\s*[,;]?\s+(?:and|or)\s+|\s*(?:和|或|以及)\s*")
PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
MAX_PARTS = 24
# Left sides that only name the value: a letter, a Greek letter, a word; with index, primes or an argument.
SYMBOL = (
    r"(?:[A-Za-df-zA-Z]|\\[A-Za-z]+|[A-Z][A-Za-z]{2,}|area|volume|perimeter|length|width|height|speed|time|distance|"
)
SYMBOL += r"cost|price|total|answer|sum|probability|angle|radius)"
NAME = SYMBOL + r"(?:_\{?\w+\}?)?'*(?:\([^()=]{1,20}\))?"
DERIVATIVE, ANGLE, NAMES = r"\\frac\{d\w*\}\{d\w*\}", r"\\angle\s*\w+", r"\(?[a-z](?:\s*,\s*[a-z])+\)?"
LEFT_SIDE = re.compile(rf"^(?:{NAME}|{DERIVATIVE}|{ANGLE}|{NAMES})$")


def top_level(text: str, separators: str) -> list[int]:
    """Positions of separator characters outside all brackets; [] when brackets do not close."""
    depth, found = 0, []
    for position, character in enumerate(text):
        if character in OPEN:
            depth += 1
        elif character in CLOSE:
            depth -= 1
        elif character in separators and depth == 0 and (position == 0 or text[position - 1] != "\\"):
            found.append(position)
        if depth < 0:
            return []
    return found if depth == 0 else []


def split_list(text: str) -> list[str]:
    """Parts of a bare list: `1, 2 and 3` -> three. A comma inside a number of thousands does not split."""
    text = CONJUNCTION.sub(" , ", text)
    cuts = [p for p in top_level(text, ",;") if not _is_thousands(text, p)]
    parts = _cut(text, cuts)
    return [part for part in (re.sub(r"^(?:and|or)\s", "", part.strip()) for part in parts) if part]


def _is_thousands(text: str, comma: int) -> bool:
    """A comma between digit groups, in a text whose other commas are followed by a space."""
    groups = re.match(r",\d{3}(?!\d)", text[comma:]) and re.search(r"(?<!\d)\d{1,3}(?:,\d{3})*$", text[:comma])
    return bool(groups) and ", " in text


def _cut(text: str, cuts: list[int]) -> list[str]:
    bounds = [-1, *cuts, len(text)]
    return [text[a + 1 : b] for a, b in pairwise(bounds)]


def split_bracketed(text: str) -> tuple[str, list[str], str] | None:
    r"""Opening bracket, parts and closing bracket of `(1, 2]`, `\{1, 2\}` or `[a, b, c]`; None for anything else.

    >>> split_bracketed(r"\{1, 2\}")
    ('{', ['1', '2'], '}')
    """
    text = text.strip()
    opening, closing = ("\\{", "\\}") if text.startswith("\\{") and text.endswith("\\}") else (text[:1], text[-1:])
    if opening not in ("\\{", "(", "[") or closing not in ("\\}", ")", "]"):
        return None
    inner = text[len(opening) : -len(closing)]
    if not _closes_only_at_end(inner):
        return None
    parts = [part.strip() for part in _cut(inner, top_level(inner, ","))]
    return (opening[-1], parts, closing[-1]) if len(parts) > 1 or opening == "\\{" else None


def _closes_only_at_end(inner: str) -> bool:
    depth = 0
    for character in inner:
        depth += (character in OPEN) - (character in CLOSE)
        if depth < 0:
            return False
    return depth == 0


def both_signs(part: str) -> list[str]:
    r"""`a \pm b` -> `a + b`, `a - b`; anything else stays one part."""
    if not PLUS_MINUS.search(part):
        return [part]
    plus = part.replace("\\pm", "+").replace("\\mp", "-")
    minus = part.replace("\\pm", "-").replace("\\mp", "+")
    return [plus.strip().removeprefix("+").strip(), minus.strip()]


def right_side(text: str) -> str:
    """`x = 3` -> `3`, where the left side is just a name; other text as it is."""
    cuts = [p for p in top_level(text, "=") if text[p - 1 : p] not in ("<", ">", "!")]
    if len(cuts) != 1:
        return text
    left, right = _cut(text, cuts)
    return right.strip() if LEFT_SIDE.match(unwrap(left).strip().strip("$")) and right.strip() else text


def name_of(text: str) -> str | None:
    """The name on the left of `x = 3`; None for other text."""
    right = right_side(text)
    return None if right == text else "".join(unwrap(text).split("=")[0].split())


def is_equation(text: str) -> bool:
    return bool(top_level(text, "="))


RELATION = re.compile(r"[<>]|\\(?:le|ge|lt|gt)(?![a-zA-Z])")
DESCENDING = re.compile(r">|\\(?:ge|gt)(?![a-zA-Z])")
UPSIDE_DOWN = {">": "<", "\\ge": "\\le", "\\gt": "<"}
MALFORMED = re.compile(r"[\^_+*/=]\s*$|\\(?:sqrt|frac|log_)\s*(?:\{\s*\}|$)|\{\}\{\}")


def is_relation(text: str) -> bool:
    """Whether an inequality is in the text."""
    return RELATION.search(text) is not None


def ascending(text: str) -> str:
    r"""A chain of inequalities read from its small end: `2 > x > 1` -> `1 < x < 2`; other text as it is."""
    signs = DESCENDING.findall(text)
    if len(signs) != 2 or len(RELATION.findall(text)) != 2:
        return text
    first, middle, last = DESCENDING.split(text)
    return f"{last.strip()} {UPSIDE_DOWN[signs[1]]} {middle.strip()} {UPSIDE_DOWN[signs[0]]} {first.strip()}"


def is_malformed(text: str) -> bool:
    """Whether the text stops in the middle, or its brackets (half-open intervals apart) do not close."""
    plain = text.replace("\\{", "").replace("\\}", "")
    opened, closed = sum(map(plain.count, "([{")), sum(map(plain.count, ")]}"))
    unfinished = plain.count("\\begin") != plain.count("\\end")
    return opened != closed or unfinished or MALFORMED.search(plain) is not None
