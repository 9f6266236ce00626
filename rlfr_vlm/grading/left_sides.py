"""Left sides of equations: which ones only name the value on the right, as in `x = 3`, `AB = 4` or `E[X] = 3`."""

import re
from itertools import pairwise

from rlfr_vlm.grading.answer_parts import top_level
from rlfr_vlm.grading.normalise import unwrap

# A letter, a Greek letter or a word, with an optional index, primes or argument.
SYMBOL = (
    r"(?:[A-Za-df-zA-Z]|\\[A-Za-z]+|[A-Z][A-Za-z]{2,}|area|volume|perimeter|length|width|height|speed|time|distance|"
    r"cost|price|total|answer|sum|probability|angle|radius|max|min|ans)"
)
INDEX = r"(?:_\{?[\w\\ ,]+\}?|_\{\\(?:text|mathrm)?\s*\{?[\w ]+\}?\})?"
NAME = SYMBOL + INDEX + r"'*(?:\([^()=]{1,20}\))?"
DERIVATIVE, NAMES = r"\\frac\{d\w*\}\{d\w*\}", r"\(?[a-zA-Z](?:\s*,\s*[a-zA-Z])+\)?"
EXTREMUM = r"\\?(?:max|min|sup|inf|lim|limsup)(?:_\{[^{}]*\})?\s+"
SEGMENT = r"(?:\\(?:overline|overrightarrow|widehat|overset\{\\frown\})\s*\{\s*)?[A-Z]'?[A-Z]'?(?:[A-Z]'?)?\s*\}?"
ANGLE = r"(?:m\s*)?\\(?:angle|triangle|measuredangle)\s*\{?\w+\}?"
SIZE = rf"\|\s*(?:{SEGMENT}|[a-zA-Z]|\\vec\{{?\w+\}}?)\s*\||\[\s*[A-Z]{{3,6}}\s*\]|S_?\{{?\\triangle\s*[A-Z]{{3}}\}}?"
ARGUMENT = r"(?:\[[^\[\]=]{1,30}\]|\([^()=]{1,30}\)|\{[^{}=]{1,30}\})"
EXPECTATION = rf"\\?(?:mathbb\{{[EP]\}}|operatorname\{{\w+\}}|E|P|Pr|V|Var|Cov|D)\s*{ARGUMENT}"
INVERSE = r"(?:[A-Z]|[fgh])\^\{?-1\}?(?:\(\w\))?"
# f(g(2)), f^{-1}(f^{-1}(6)) at numbers; with variables it may be a condition that f fulfils
COMPOSED = r"(?:[fgh](?:\^\{?-1\}?)?\(){2,4}[^()=A-Za-z\\]{1,20}\){2,4}"
ONE = rf"(?:{EXTREMUM})?(?:{INVERSE}|{COMPOSED}|{NAME}|{SEGMENT}|{SIZE}|{ANGLE})"
RATIO = rf"{ONE}\s*:\s*{ONE}(?:\s*:\s*{ONE})?|\\frac\{{(?:{SEGMENT}|{SIZE})\}}\{{(?:{SEGMENT}|{SIZE})\}}"
PHRASE = r"(?:[A-Za-z]+\s+)*[A-Za-z]{4,}(?:\s+[A-Za-z]+)*"
LEFT_SIDE = re.compile(rf"^(?:{ONE}|{DERIVATIVE}|{NAMES}|{EXPECTATION}|{RATIO}|{PHRASE})$")
EXPRESSION = re.compile(r"^[a-z0-9+\-*^{}(). ]+$")  # of variables, such as x^2 + y^2, which names nothing


def _cut(text: str, cuts: list[int]) -> list[str]:
    return [text[a + 1 : b] for a, b in pairwise([-1, *cuts, len(text)])]


def members(text: str) -> list[str]:
    """Return the members of a chain of equalities; the text alone if it has no equals sign outside brackets."""
    cuts = [p for p in top_level(text, "=") if text[p - 1 : p] not in ("<", ">", "!")]
    return [member.strip() for member in _cut(text, cuts)]


def is_name(text: str) -> bool:
    """Return whether the left side of an equation only names its value.

    >>> is_name("AB"), is_name("f(2)"), is_name("S_1:S_2"), is_name("2x"), is_name("xy")
    (True, True, True, False, False)
    """
    return len(text) <= 80 and LEFT_SIDE.match(unwrap(text).strip().strip("$")) is not None


def is_expression(text: str) -> bool:
    """Return whether the left side of an equation is an expression of variables and numbers."""
    return EXPRESSION.match(unwrap(text).strip()) is not None


def is_sum(text: str) -> bool:
    r"""Return whether a text has a plus or minus sign outside all brackets, other than before its first term.

    >>> is_sum(r"y' + ry"), is_sum("-x"), is_sum("f(a+b)")
    (True, False, False)
    """
    bare = unwrap(text).strip()
    return any(position > 0 for position in top_level(bare, "+-"))


def right_side(text: str) -> str:
    """Return `3` for `x = 3` and `2` for `x = 1 + 1 = 2` if the left side is just a name; else the text unchanged."""
    parts = members(text)
    if len(parts) < 2 or not parts[-1]:
        return text
    return parts[-1] if is_name(parts[0]) else text


def name_of(text: str) -> str | None:
    """Return the name on the left of `x = 3`; None for other text."""
    right = right_side(text)
    return None if right == text else "".join(unwrap(text).split("=")[0].split())


def is_equation(text: str) -> bool:
    """Return whether the text has an equals sign outside all brackets."""
    return len(members(text)) > 1
