"""Split an answer into parts: lists, tuples, sets, both signs of a plus-minus."""

import re
from itertools import pairwise

OPEN, CLOSE = "([{⟨", ")]}⟩"
CONJUNCTION = re.compile(
    r"\s*[,;]?\s*\\text\s*\{\s*(?:and|or)\s*\}\s*|\s*[,;]?\s+(?:and|or)\s+|\s*(?:和|或|以及)\s*"
    r"|(?<=[)\]}\d])\s*(?:and|or)\s*(?=[(\[{\\\d-])"
)
SEPARATOR = re.compile(r"[,;]|and|or|和|或|以及")
PLUS_MINUS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
MAX_PARTS = 24


def top_level(text: str, separators: str) -> list[int]:
    """Return the positions of separator characters outside all brackets; [] if brackets do not close."""
    depth, positions = 0, []
    for position, character in enumerate(text):
        if character in OPEN:
            depth += 1
        elif character in CLOSE:
            depth -= 1
        elif character in separators and depth == 0 and (position == 0 or text[position - 1] != "\\"):
            positions.append(position)
        if depth < 0:
            return []
    return positions if depth == 0 else []


def split_list(text: str) -> list[str]:
    """Return the parts of a list without brackets: `1, 2 and 3` has three. Thousands separators do not split."""
    if not SEPARATOR.search(text):
        return [text.strip()] if text.strip() else []
    text = CONJUNCTION.sub(" , ", text)
    cuts = [p for p in top_level(text, ",;") if not _is_thousands(text, p)]
    parts = _cut(text, cuts)
    return [part for part in (re.sub(r"^(?:and|or)\s", "", part.strip()) for part in parts) if part]


def _is_thousands(text: str, comma: int) -> bool:
    """Return whether a comma stands between digit groups, in a text whose list commas are followed by a space."""
    groups = re.match(r",\d{3}(?!\d)", text[comma:]) and re.search(r"(?<!\d)\d{1,3}(?:,\d{3})*$", text[:comma])
    return bool(groups) and ", " in text


def _cut(text: str, cuts: list[int]) -> list[str]:
    bounds = [-1, *cuts, len(text)]
    return [text[a + 1 : b] for a, b in pairwise(bounds)]


def split_bracketed(text: str) -> tuple[str, list[str], str] | None:
    r"""Return opening bracket, parts and closing bracket of `(1, 2]`, `\{1, 2\}` or `[a, b, c]`; None for other text.

    >>> split_bracketed(r"\{1, 2\}")
    ('{', ['1', '2'], '}')
    """
    text = text.strip()
    opening, closing = ("\\{", "\\}") if text.startswith("\\{") and text.endswith("\\}") else (text[:1], text[-1:])
    if opening not in ("\\{", "(", "[", "⟨") or closing not in ("\\}", ")", "]", "⟩"):
        return None
    inner = text[len(opening) : -len(closing)]
    if not _closes_only_at_end(inner):
        return None
    parts = [part.strip() for part in _cut(inner, top_level(inner, ",;"))]
    return (opening[-1], parts, closing[-1]) if len(parts) > 1 or opening == "\\{" else None


def _closes_only_at_end(inner: str) -> bool:
    depth = 0
    for character in inner:
        depth += (character in OPEN) - (character in CLOSE)
        if depth < 0:
            return False
    return depth == 0


def both_signs(part: str) -> list[str]:
    r"""Split `a \pm b` into `a + b` and `a - b`; return other text as one part."""
    if not PLUS_MINUS.search(part):
        return [part]
    plus = part.replace("\\pm", "+").replace("\\mp", "-")
    minus = part.replace("\\pm", "-").replace("\\mp", "+")
    return [plus.strip().removeprefix("+").strip(), minus.strip()]


RELATION = re.compile(r"[<>]|\\(?:le|ge|lt|gt|ne)(?![a-zA-Z])")
DESCENDING = re.compile(r">|\\(?:ge|gt)(?![a-zA-Z])")
UPSIDE_DOWN = {">": "<", "\\ge": "\\le", "\\gt": "<"}
MALFORMED = re.compile(r"[\^_+*/=]\s*$|\\(?:sqrt|frac|log_)\s*(?:\{\s*\}|$)|\{\}\{\}")


def is_relation(text: str) -> bool:
    """Return whether the text contains an inequality sign."""
    return RELATION.search(text) is not None


def ascending(text: str) -> str:
    r"""Turn a descending chain of inequalities around: `2 > x > 1` -> `1 < x < 2`; return other text unchanged."""
    signs = DESCENDING.findall(text)
    if len(signs) != 2 or len(RELATION.findall(text)) != 2:
        return text
    first, middle, last = DESCENDING.split(text)
    return f"{last.strip()} {UPSIDE_DOWN[signs[1]]} {middle.strip()} {UPSIDE_DOWN[signs[0]]} {first.strip()}"


def is_malformed(text: str) -> bool:
    """Return whether the text is cut off or has unbalanced brackets. Half-open intervals count as balanced."""
    plain = text.replace("\\{", "").replace("\\}", "")
    opened, closed = sum(map(plain.count, "([{")), sum(map(plain.count, ")]}"))
    unfinished = plain.count("\\begin") != plain.count("\\end")
    return opened != closed or unfinished or MALFORMED.search(plain) is not None
