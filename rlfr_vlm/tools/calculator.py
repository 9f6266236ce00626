"""A tool that computes arithmetic exactly. What the policy writes is parsed and walked, never evaluated."""

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

LONGEST = 200  # characters of an expression
LARGEST_EXPONENT = 100
LARGEST = 10**100  # of numbers and results

OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculator(expression: str) -> str:
    """Compute an arithmetic expression.

    Args:
        expression: Numbers, parentheses, + - * / and ** with a whole exponent, such as (3 + 4) * 12.

    Returns:
        The result as a whole number, or as a decimal with up to 10 digits.
    """
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters; at most {LONGEST} are computed")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{expression!r} is no arithmetic expression") from None
    result = _value(tree.body)
    return str(result.numerator) if result.denominator == 1 else f"{float(result):.10g}"


def _value(node: ast.expr) -> Fraction:
    """Return the value of a part of an expression.

    Raises:
        ValueError: it is no arithmetic, divides by zero, or is too large.
    """
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return _bounded(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in OPERATIONS:
            if isinstance(node.op, ast.Div) and right == 0:
                raise ValueError("the expression divides by zero")
            return _bounded(OPERATIONS[type(node.op)](left, right))
    raise ValueError(f"{ast.unparse(node)!r} is no arithmetic; use numbers, parentheses, + - * / and **")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > LARGEST_EXPONENT:
        raise ValueError(f"an exponent must be whole and at most {LARGEST_EXPONENT}")
    if base == 0 and exponent < 0:
        raise ValueError("the expression divides by zero")
    return _bounded(base ** int(exponent))


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > LARGEST:
        raise ValueError("a number of the expression is too large")
    return value
