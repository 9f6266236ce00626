"""Estimate how large a parsed expression becomes, before it is evaluated.

The parser evaluates nothing, so that `10^{10^{10}}` is a small tree. Evaluating it would fill the memory.
"""

import math

from sympy import Basic, Integer, Pow, Product, Rational, Sum, binomial, exp, factorial, postorder_traversal
from sympy.functions.combinatorial.factorials import factorial2

MAX_BITS = 200_000  # of an integer, about 60,000 digits
MAX_DEGREE = 10_000  # of a power of a variable
MAX_TERMS = 10_000  # of a sum or product
MAX_NODES = 3_000  # of the expression tree


def is_too_large(expression: Basic) -> bool:
    """Return whether evaluating the expression would need an enormous number or an enormous number of terms."""
    values: dict[Basic, float] = {}
    num_terms = 1.0
    for count, node in enumerate(postorder_traversal(expression)):
        if count > MAX_NODES:
            return True
        if isinstance(node, Sum | Product):
            num_terms *= _terms(node)
        if isinstance(node, Basic) and (_is_large_node(node, values) or num_terms > MAX_TERMS):
            return True
    return False


def _terms(node: Sum | Product) -> float:
    """Return the number of terms; 1 if it is unknown or infinite, where closed forms may exist."""
    count = 1.0
    for limits in node.limits:
        if len(limits) == 3:
            low, high = (_value(bound, {}) for bound in limits[1:])
            if math.isfinite(high - low):
                count *= max(1.0, high - low + 1)
            elif high == math.inf and (isinstance(node, Product) or not limits[2].is_infinite):
                return math.inf  # a product without end, or a bound such as 10^{10^{10}}
    return count


def _is_large_node(node: Basic, values: dict[Basic, float]) -> bool:
    if isinstance(node, Pow):
        exponent = abs(_value(node.exp, values))
        base = abs(_value(node.base, values))
        if math.isnan(exponent):
            return False
        if math.isnan(base) or not node.base.is_number:
            return exponent > MAX_DEGREE
        return exponent >= 1 and base not in (0, 1) and exponent * abs(_log2(base)) > MAX_BITS
    if isinstance(node, factorial | factorial2 | exp):
        argument = abs(_value(node.args[0], values))
        return argument > (MAX_DEGREE * 2 if not isinstance(node, exp) else MAX_BITS)
    if isinstance(node, binomial):
        return abs(_value(node.args[0], values)) > MAX_BITS and abs(_value(node.args[1], values)) > MAX_DEGREE
    return False


def _log2(value: float) -> float:
    return math.inf if math.isinf(value) else math.log2(value)


def _value(node: Basic, values: dict[Basic, float]) -> float:
    """Return the value of a constant as a float: infinite if it is too large, nan if it is unknown."""
    if node not in values:
        values[node] = _value_of_node(node, values)
    return values[node]


def _value_of_node(node: Basic, values: dict[Basic, float]) -> float:
    if isinstance(node, Integer | Rational) or (node.is_Atom and getattr(node, "is_number", False)):
        try:
            return float(node)
        except OverflowError:
            return math.inf
        except TypeError:  # the imaginary unit
            return math.nan
    if not node.args or node.free_symbols:
        return math.nan
    arguments = [_value(argument, values) for argument in node.args]
    try:
        return _apply(node, arguments)
    except OverflowError:
        return math.inf
    except (ValueError, ZeroDivisionError):
        return math.nan


def _apply(node: Basic, arguments: list[float]) -> float:
    if node.is_Add:
        return math.fsum(arguments)
    if node.is_Mul:
        return math.prod(arguments)
    if isinstance(node, Pow):
        power = arguments[0] ** arguments[1]
        return power if isinstance(power, float) else abs(power)
    if isinstance(node, exp):
        return math.exp(arguments[0])
    if isinstance(node, factorial | factorial2):
        return math.exp(math.lgamma(arguments[0] + 1))
    return math.nan
