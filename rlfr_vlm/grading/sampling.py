"""Decide whether two expressions with variables are equal, from their values at sample points.

Two analytic expressions that agree to many digits at several points are the same, and one point where they differ
shows that they are not. Where they agree at some points only, equality depends on what the variables stand for.
"""

from collections.abc import Iterator, Sequence
from enum import Enum

from mpmath import mp, mpc
from sympy import Basic, Expr, Float, I, Integer, Pow, Rational, Symbol, ceiling, floor, log, nan, zoo

DIGITS = 30
EQUAL = 1e-20  # largest relative difference of equal values
EQUAL_DECIMALS = 1e-6  # the same if one expression has decimals, which are rounded
SMALLEST = 1e-6  # size of values below which differences are absolute: terms cancel at some points
MIN_POINTS = 3  # at which both expressions must have values
# Numerators and denominators of values that no simple relation connects. Symbol number i of point p gets value i + p.
POSITIVE = [Rational(*pair) for pair in ((17, 13), (7, 19), (41, 11), (3, 29), (53, 23), (131, 7), (31, 37), (5, 43))]
INTEGERS = [2, 3, 5, 4, 7, 6, 11, 9]
CONTEXT = mp.clone()
CONTEXT.dps = 60


class Agreement(Enum):
    """Whether two expressions agree at the sample points: at all, at none or some, or at too few with a value."""

    EQUAL = "equal"
    DIFFERENT = "different"
    DEPENDS = "depends on the variables' domain"
    UNKNOWN = "unknown"


def compare_at_points(first: Expr, second: Expr, symbols: Sequence[Symbol], decimals: bool = False) -> Agreement:
    """Compare two expressions at positive points, at points of either sign, and at integers.

    Args:
        first, second: expressions in `symbols`.
        symbols: all variables of both.
        decimals: compare as rounded decimals.
    """
    tolerance = EQUAL_DECIMALS if decimals else EQUAL
    found: dict[str, list[bool]] = {"positive": [], "signed": [], "integer": []}
    is_complex = first.has(I) or second.has(I)
    domain = [] if is_complex else _real_domain(first) + _real_domain(second)
    for kind, point in _points(symbols):
        if kind == "signed" and _is_outside(domain, point):
            continue
        equal = _equal_at(first, second, point, tolerance, is_complex)
        if equal is not None:
            found[kind].append(equal)
        if equal is False and kind == "integer" and first.has(floor, ceiling):
            return Agreement.DIFFERENT  # steps agree at some points by chance
        if kind == "integer" and found["positive"] and not any(found["positive"] + found["integer"]):
            return Agreement.DIFFERENT  # a positive point and an integer show a difference
    reals = found["positive"] + found["signed"]
    if len(reals) + len(found["integer"]) < MIN_POINTS:
        return Agreement.UNKNOWN
    if all(reals) and all(found["integer"]):
        return Agreement.EQUAL
    if any(reals) or (found["integer"] and all(found["integer"])):
        return Agreement.DEPENDS
    return Agreement.DIFFERENT


def _points(symbols: Sequence[Symbol]) -> Iterator[tuple[str, dict[Symbol, Basic]]]:
    ordered = sorted(symbols, key=lambda symbol: symbol.name)
    count = len(POSITIVE)
    yield "positive", {symbol: POSITIVE[i % count] + i // count for i, symbol in enumerate(ordered)}
    for shift in range(4):
        yield "integer", {s: Integer(INTEGERS[(i + 3 * shift) % 8] + 7 * (i // 8)) for i, s in enumerate(ordered)}
    for shift in range(1, 4):
        yield "positive", {s: POSITIVE[(i + shift * 3) % count] + i // count for i, s in enumerate(ordered)}
    for shift in range(3):
        signs = [-1 if (i + shift) % 2 == 0 or shift == 2 else 1 for i in range(len(ordered))]
        yield (
            "signed",
            {s: sign * POSITIVE[(i + shift) % count] for i, (s, sign) in enumerate(zip(ordered, signs, strict=True))},
        )


def _real_domain(expression: Expr) -> list[Expr]:
    """Return the arguments of roots and logarithms, which must not be negative."""
    roots = [node.base for node in expression.atoms(Pow) if not node.exp.is_integer and node.base.free_symbols]
    return roots + [node.args[0] for node in expression.atoms(log) if node.args[0].free_symbols]


def _is_outside(domain: list[Expr], point: dict[Symbol, Basic]) -> bool:
    values = [value_at(argument, point) for argument in domain]
    return any(value is None or value.real < 0 for value in values)


def _equal_at(
    first: Expr, second: Expr, point: dict[Symbol, Basic], tolerance: float, is_complex: bool
) -> bool | None:
    """Return whether the values at a point are equal; None if one of them has no value there."""
    values = value_at(first, point), value_at(second, point)
    if values[0] is None or values[1] is None:
        return None
    real = [is_complex or abs(value.imag) <= tolerance * (1 + abs(value)) for value in values if value is not None]
    if real[0] != real[1]:
        return None  # a logarithm or root outside its domain
    size = max(abs(values[0]), abs(values[1]), SMALLEST)
    return bool(abs(values[0] - values[1]) <= tolerance * size)


def value_at(expression: Expr, point: dict[Symbol, Basic], digits: int = DIGITS) -> mpc | None:
    """Return the value of an expression at a point; None if it has none."""
    try:
        value = expression.evalf(digits, subs=point, maxn=200)
    except (TypeError, ValueError, ArithmeticError, AttributeError, NotImplementedError):
        return None
    if value is nan or value is zoo or not value.is_number or value.free_symbols:
        return None
    real, imag = value.as_real_imag()
    if not (real.is_Float or real.is_Rational) or not (imag.is_Float or imag.is_Rational):
        return None
    return CONTEXT.mpc(Float(real, digits), Float(imag, digits))
