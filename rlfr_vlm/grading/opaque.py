"""Notations that the algebra would misread: unknown functions, transposes, vectors, products that do not commute.

They are replaced by symbols, so that they equal only themselves, or marked, so that algebra alone does not decide.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import count

from rlfr_vlm.grading.normalise import unwrap

ARGUMENTS = r"\s*\(([^()]*)\)"
NAMED_FUNCTION = re.compile(
    r"(?:\\(?:operatorname|mathrm|text|textrm)\s*\{\s*(?:gcd|lcm)\s*\}|\\(?:gcd|lcm)(?![a-zA-Z])"
    rf"|(?<![a-zA-Z\\])(?:gcd|lcm)){ARGUMENTS}"
)
DOUBLE_FACTORIAL = re.compile(r"(?:\w|\([^()]*\))\s*!\s*!+")
TRANSPOSE = re.compile(
    r"(?:[A-Z]|\([A-Z\s+-]+\)|\\(?:mathbf|vec|boldsymbol)\{\w\})\s*\^\s*"
    r"(?:\{\s*(?:T|H|\*|\\(?:top|intercal|dagger|ast|mathsf\{T\}|mathrm\{T\}|text\{T\}|prime))\s*\}"
    r"|T|H|\*|\\(?:top|intercal|dagger|ast|prime)(?![a-zA-Z]))"
)
INVERSE = re.compile(r"(?<![A-Za-z\\])[fghFGH]\s*\^\s*\{?\s*-\s*1\s*\}?\s*(?:\([^()]*\))?")
VECTOR = re.compile(r"\\(?:vec|overrightarrow|mathbf|boldsymbol|bm|hat|nabla)(?![a-zA-Z])")
ADJACENT = re.compile(r"\}\s*\\(?:vec|overrightarrow|mathbf|boldsymbol|bm|nabla)(?![a-zA-Z])")
PRODUCT = re.compile(r"\\(?:times|cdot|wedge|otimes)(?![a-zA-Z])")
FIGURE = re.compile(r"\\(?:triangle|angle|square|parallel|perp|cong|sim)(?![a-zA-Z])")
DIMENSIONS = re.compile(r"\d+\s*\\times\s*\d+")
CAPITALS = re.compile(r"[A-Z0-9^{}()+\s-]*")
POWER_OF_PRODUCT = re.compile(r"\([A-Z\s]{2,}\)\s*\^")
TERM = re.compile(r"[+-]")


@dataclass(frozen=True)
class Masked:
    """Two texts whose unknown notations are symbols.

    Attributes:
        gold, answer: the texts.
        unknown: an unknown notation stands in only one of them, so that a difference proves nothing.
        order_matters: the factors have another order, in a product that may not commute.
    """

    gold: str
    answer: str
    unknown: bool
    order_matters: bool


def mask(gold: str, answer: str) -> Masked:
    r"""Replace notations that the algebra does not know by symbols.

    >>> mask(r"\gcd(a,b)", "1")
    Masked(gold='q_{9000}', answer='1', unknown=True, order_matters=False)
    """
    symbols: dict[str, str] = {}
    numbers = count(9000)

    def symbol(match: re.Match[str]) -> str:
        is_function = match.re is NAMED_FUNCTION
        if is_function and not re.search(r"[a-zA-Z]", match[1]):
            return match[0]  # numbers: the algebra computes it, or cannot read it
        key = "".join(unwrap(match[0]).split())
        if key not in symbols:
            symbols[key] = f"q_{{{next(numbers)}}}"
        return symbols[key]

    texts, used = [], []
    for text in (gold, answer):
        for pattern in (NAMED_FUNCTION, DOUBLE_FACTORIAL, TRANSPOSE, INVERSE):
            text = pattern.sub(symbol, text)
        texts.append(text)
        used.append({name for name in symbols.values() if name in text})
    return Masked(
        texts[0],
        texts[1],
        used[0] != used[1],
        _vector_product(gold, answer) or _reordered(gold, answer) or DIMENSIONS.fullmatch(gold) is not None,
    )


def _vector_product(gold: str, answer: str) -> bool:
    """Return whether both texts multiply vectors, of which there are several products."""
    return all(VECTOR.search(text) and (PRODUCT.search(text) or ADJACENT.search(text)) for text in (gold, answer))


def _reordered(gold: str, answer: str) -> bool:
    """Return whether two products of capital letters, which may be matrices, have their factors in another order."""
    terms = []
    for text in (gold, answer):
        plain = FIGURE.sub("", PRODUCT.sub("", unwrap(text)))
        if not CAPITALS.fullmatch(plain):
            return False
        if POWER_OF_PRODUCT.search(plain) and gold != answer:
            return True
        without_exponents = re.sub(r"\^\s*(?:\{[^{}]*\}|\w)", "", plain)
        letters = ("".join(re.findall("[A-Z]", term)) for term in TERM.split(without_exponents))
        terms.append(Counter(product for product in letters if len(product) > 1))
    return terms[0] != terms[1]
