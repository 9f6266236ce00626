"""Decide whether two parsed answers are equal: constants, expressions with variables, matrices and tuples.

Each function returns True, False, or None where neither can be shown.
"""

from itertools import count

from sympy import Basic, Derivative, Expr, Float, Integral, Limit, MatrixBase, Product, Sum, Symbol, Tuple
from sympy.core.function import AppliedUndef

from rlfr_vlm.grading.sampling import Agreement, compare_at_points, value_at
from rlfr_vlm.grading.size import is_too_large

DIGITS = 50  # of numerical evaluation
EXACT = 1e-30  # largest difference after numerical evaluation that counts as 0
NUMERIC_TOLERANCE = 1e-6  # relative; absorbs the rounding of answers written as decimals
UNEVALUATED = (Sum, Product, Integral, Limit, Derivative)


class TooLarge(ArithmeticError):
    """An expression is too large to be evaluated."""


def same_symbols(*parsed: Basic | MatrixBase) -> list[Basic | MatrixBase]:
    """Return the arguments with one symbol per name. The parser makes real and complex symbols of the same name.

    Functions of unknown definition and derivatives become symbols too, so that they equal only themselves.
    """
    names: dict[str, Symbol] = {}
    opaque: dict[Basic, Symbol] = {}
    numbers = count()
    renamed = []
    for expression in parsed:
        symbols = {s: names.setdefault(s.name, Symbol(s.name)) for s in expression.free_symbols}
        expression = expression.xreplace(symbols)
        if isinstance(expression, Basic) and expression.has(AppliedUndef, Derivative):
            for node in sorted(expression.atoms(AppliedUndef, Derivative), key=lambda node: -len(str(node))):
                if node not in opaque:
                    opaque[node] = Symbol(f"opaque{next(numbers)}")
            expression = expression.xreplace(opaque)
        renamed.append(expression)
    return renamed


def equal_values(gold: Basic | MatrixBase, answer: Basic | MatrixBase, tolerance: float = 0.0) -> bool | None:
    """Compare two expressions, matrices or tuples.

    Raises:
        TooLarge: a value would be enormous.
    """
    if isinstance(gold, MatrixBase) or isinstance(answer, MatrixBase):
        if not (isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase)) or gold.shape != answer.shape:
            return False
        return all_equal([equal_values(*pair, tolerance) for pair in zip(gold, answer, strict=True)])
    if isinstance(gold, Tuple) and isinstance(answer, Tuple):
        if len(gold) != len(answer):
            return False
        return all_equal([equal_values(*pair, tolerance) for pair in zip(gold, answer, strict=True)])
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
        return True if gold == answer else None
    return equal_expressions(gold, answer, tolerance)


def all_equal(results: list[bool | None]) -> bool | None:
    """Return False if any part differs, None if any part is unknown, else True."""
    if False in results:
        return False
    return None if None in results else True


def equal_expressions(gold: Expr, answer: Expr, tolerance: float = 0.0) -> bool | None:
    """Compare two expressions: exactly by their value or at sample points, with decimals as rounded ones."""
    gold, answer = same_symbols(gold, answer)
    if gold == answer:
        return True
    if is_too_large(gold) or is_too_large(answer):
        raise TooLarge
    gold, answer = _evaluated(gold), _evaluated(answer)
    if gold == answer:
        return True
    symbols = gold.free_symbols | answer.free_symbols
    try:
        if not symbols:
            return equal_numbers(gold, answer, tolerance)
    except PermissionError:  # some series are summed with compiled text, which the guard forbids
        return None
    if gold.is_infinite or answer.is_infinite:
        return False
    decimals = gold.has(Float) or answer.has(Float) or bool(tolerance)
    agreement = compare_at_points(gold, answer, sorted(symbols, key=lambda s: s.name), decimals)
    if agreement is Agreement.UNKNOWN and _is_zero(gold - answer):
        return True
    return {Agreement.EQUAL: True, Agreement.DIFFERENT: False}.get(agreement)


def _is_zero(difference: Expr) -> bool:
    try:
        return bool(difference.equals(0))
    except PermissionError:
        return False


def _evaluated(expression: Expr) -> Expr:
    """Carry out sums, integrals and limits. The guard against compiled text forbids some; they stay as they are."""
    if not expression.has(*UNEVALUATED):
        return expression
    try:
        return expression.doit()
    except PermissionError:
        return expression


def equal_numbers(gold: Expr, answer: Expr, tolerance: float = 0.0) -> bool | None:
    """Compare two constants: exactly, unless one is written as a decimal; None if a value cannot be computed."""
    gold, answer = (value if value.has(*UNEVALUATED) else value.doit() for value in (gold, answer))
    if gold == answer:
        return True
    if not (gold.is_finite is not False and answer.is_finite is not False):
        return False if gold.is_infinite or answer.is_infinite else None
    exact = not (gold.has(Float) or answer.has(Float)) and not tolerance
    if exact and gold.is_Rational and answer.is_Rational:
        return False
    difference, size = abs((gold - answer).evalf(DIGITS)), abs(gold.evalf(DIGITS))
    if not difference.is_comparable:  # evalf found no digit of the difference: compare the digits of the values
        return True if _same_digits(gold, answer) else None
    if not size.is_comparable:
        return None
    if exact:  # evalf raises its precision until the digits of a difference are right, however large its terms
        return bool(difference <= min(EXACT, EXACT * size))
    return bool(difference <= max(tolerance, NUMERIC_TOLERANCE) * size)


def _same_digits(gold: Expr, answer: Expr) -> bool:
    values = value_at(gold, {}, DIGITS), value_at(answer, {}, DIGITS)
    if values[0] is None or values[1] is None:
        return False
    return bool(abs(values[0] - values[1]) <= EXACT * abs(values[0]))
