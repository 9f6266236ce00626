"""Compare equations and inequalities: the same relation may be multiplied by a constant or solved for a variable."""

from sympy import (
    Basic,
    Eq,
    Expr,
    Float,
    Ge,
    Gt,
    I,
    Le,
    Lt,
    MatrixBase,
    Ne,
    Poly,
    PolynomialError,
    Symbol,
    fraction,
    together,
)
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from rlfr_vlm.grading.equality import all_equal, equal_expressions, equal_values, same_symbols
from rlfr_vlm.grading.sampling import CONTEXT, POSITIVE, value_at
from rlfr_vlm.grading.size import is_too_large

FLIPPED: dict[type[Relational], type[Relational]] = {Gt: Lt, Ge: Le}
MAX_DEGREE = 6  # of polynomials whose roots are compared
SAME = 1e-12  # largest relative difference of equal roots or ratios


def equal_relations(gold: Relational, answer: Relational, tolerance: float = 0.0) -> bool | None:
    """Return whether two relations hold for the same values of their variables; None if neither can be shown."""
    defined = _equal_definitions(gold, answer, tolerance)
    if defined is not None:
        return defined[0]
    if type(gold) is type(answer) and (same := _equal_right_sides(gold, answer, tolerance)) is not None:
        return same
    if not all(isinstance(side, Expr) for side in (gold.lhs, gold.rhs, answer.lhs, answer.rhs)):
        return None
    (gold_sides, gold_type), (answer_sides, answer_type) = _difference(gold), _difference(answer)
    first, second = same_symbols(gold_sides, answer_sides)
    if is_too_large(first) or is_too_large(second):
        return None
    symbols = sorted(first.free_symbols | second.free_symbols, key=lambda symbol: symbol.name)
    if not symbols:
        return _equal_sides(gold, answer) if gold_type is answer_type else None
    ratio = _constant_ratio(first, second, symbols)
    if ratio is not None:
        keeps = ratio > 0 or gold_type in (Eq, Ne)
        if gold_type is answer_type and keeps:
            return True
        return False if gold_type is not answer_type or ratio < 0 else None
    if gold_type is Eq and answer_type is Eq:
        return _equal_zeros(first, second, symbols)
    return False if len(symbols) == 1 or gold_type is not answer_type else None


def _equal_sides(gold: Relational, answer: Relational) -> bool | None:
    """Compare relations of constants, such as log_2 8 = 3, side by side."""
    return all_equal([equal_expressions(gold.lhs, answer.lhs), equal_expressions(gold.rhs, answer.rhs)])


def _equal_right_sides(gold: Relational, answer: Relational, tolerance: float) -> bool | None:
    """Compare relations with the same left side. Right sides that differ decide only if they are no expressions."""
    left, right = same_symbols(gold.lhs, answer.lhs)
    if left != right:
        return None
    same = equal_values(gold.rhs, answer.rhs, tolerance)
    return same if same or isinstance(gold.rhs, MatrixBase) else None


def _difference(relation: Relational) -> tuple[Expr, type[Relational]]:
    """Return left minus right side and the type of the relation, where `greater` is turned around into `less`."""
    kind = type(relation)
    if kind in FLIPPED:
        return relation.rhs - relation.lhs, FLIPPED[kind]
    return relation.lhs - relation.rhs, kind


def _equal_definitions(gold: Relational, answer: Relational, tolerance: float) -> tuple[bool | None] | None:
    """Compare `f(x) = 2x` and `f(t) = 2t`, where the argument is a bound name; None if either is no definition."""
    if not (isinstance(gold, Eq) and isinstance(answer, Eq)):
        return None
    left, right = gold.lhs, answer.lhs
    if isinstance(left, Symbol) and isinstance(right, Symbol):
        if left.name == right.name and left not in gold.rhs.free_symbols and right not in answer.rhs.free_symbols:
            return (equal_expressions(gold.rhs, answer.rhs, tolerance),)
        return None
    if not (isinstance(left, AppliedUndef) and isinstance(right, AppliedUndef)):
        return None
    if left.func.__name__ != right.func.__name__ or len(left.args) != len(right.args):
        return (None,)
    bound = all(isinstance(argument, Symbol) and argument.name.islower() for argument in (*left.args, *right.args))
    if not bound:
        same = all(equal_expressions(*pair) for pair in zip(left.args, right.args, strict=True))
        return (equal_expressions(gold.rhs, answer.rhs, tolerance),) if same else (False,)
    names = {old: Symbol(f"bound{i}") for i, old in enumerate(left.args)}
    other = {old: Symbol(f"bound{i}") for i, old in enumerate(right.args)}
    return (equal_expressions(gold.rhs.subs(names), answer.rhs.subs(other), tolerance),)


def _constant_ratio(first: Expr, second: Expr, symbols: list[Symbol]) -> float | None:
    """Return second / first if it is the same real number at all sample points, else None."""
    ratios = []
    for shift in range(5):
        sign = -1 if shift > 2 else 1
        point = {s: sign * (POSITIVE[(i + 3 * shift) % 8] + i // 8) for i, s in enumerate(symbols)}
        values = value_at(first, point), value_at(second, point)
        if values[0] is None or values[1] is None or abs(values[0]) < SAME:
            continue
        ratios.append(values[1] / values[0])
    if len(ratios) < 3 or any(abs(ratio - ratios[0]) > SAME * abs(ratios[0]) for ratio in ratios):
        return None
    return float(ratios[0].real) if ratios[0] != 0 and abs(ratios[0].imag) <= SAME * abs(ratios[0]) else None


def _equal_zeros(first: Expr, second: Expr, symbols: list[Symbol]) -> bool | None:
    """Compare the zeros in one variable while the others have sample values; None if they cannot be computed."""
    if first.free_symbols != second.free_symbols:
        return False if _is_polynomial(first, symbols) and _is_polynomial(second, symbols) else None
    for variable in symbols:
        results = []
        for shift in range(2):
            others = [s for s in symbols if s != variable]
            point: dict[Basic, Basic] = {s: POSITIVE[(i + 3 * shift) % 8] for i, s in enumerate(others)}
            roots = _roots(first.xreplace(point), variable), _roots(second.xreplace(point), variable)
            results.append(None if None in roots else _same_roots(*roots))  # type: ignore[arg-type]
        if None not in results:
            return all(results)
    return None


def _is_polynomial(expression: Expr, symbols: list[Symbol]) -> bool:
    return bool(expression.is_polynomial(*symbols))


def _roots(expression: Expr, variable: Symbol) -> list[complex] | None:
    """Return the distinct zeros of a rational function; None for other expressions."""
    try:
        top, bottom = fraction(together(expression))
        polynomial = Poly(top, variable)
        if not bottom.is_polynomial(variable) or not 1 <= polynomial.degree() <= MAX_DEGREE:
            return None
        coefficients = [value_at(coefficient, {}) for coefficient in polynomial.all_coeffs()]
        if None in coefficients:
            return None
        found = CONTEXT.polyroots(coefficients, maxsteps=200, extraprec=200)
    except (PolynomialError, CONTEXT.NoConvergence, ZeroDivisionError, TypeError):
        return None
    distinct: list[complex] = []
    for root in found:
        poles = value_at(bottom, {variable: Float(root.real, 30) + I * Float(root.imag, 30)})
        if poles is not None and poles != 0 and not any(_close(root, other) for other in distinct):
            distinct.append(root)
    return distinct


def _close(first: complex, second: complex) -> bool:
    return bool(abs(first - second) <= 1e-8 * (1 + abs(first)))


def _same_roots(first: list[complex], second: list[complex]) -> bool:
    return len(first) == len(second) and all(any(_close(a, b) for b in second) for a in first)
