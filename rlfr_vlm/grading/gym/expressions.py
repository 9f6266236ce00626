"""Read expressions in answers without evaluating text.

Scorers of reasoning-gym 0.1.25 hand model text to Python's `eval`, or to sympy's `parse_expr`, which compiles it. In
the scoring processes both names stand for the readers here, which build the value from the syntax tree: numbers,
names, arithmetic and a few functions. What the tree has beside them is not read, and `UNREAD` notes it.
"""

import ast
import importlib
import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

MAX_LENGTH = 2000  # characters
MAX_BITS = 4096  # of a number that a power or a shift may give
# Modules that evaluate model text (or the text of an entry, which may come from a file), and under which name.
READERS = {
    "algebra.intermediate_integration": "sympy",
    "algebra.polynomial_multiplication": "sp",
    "algebra.simple_integration": "sympy",
    "algorithmic.binary_matrix": "eval",
    "algorithmic.number_sorting": "eval",
    "algorithmic.spiral_matrix": "eval",
    "algorithmic.string_insertion": "eval",
    "arithmetic.bitwise_arithmetic": "eval",
    "games.countdown": "parse_expr",
    "games.n_queens": "eval",
    "games.puzzle24": "parse_expr",
}
INTEGER_EVAL = ("arithmetic.bitwise_arithmetic",)  # `eval` reads arithmetic; elsewhere it reads lists
BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
FUNCTIONS = (
    *("exp", "log", "ln", "sqrt", "Abs", "sin", "cos", "tan", "cot", "sec", "csc"),
    *("asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
)
CONSTANTS = ("pi", "E", "I")


class UnreadError(ValueError):
    """An expression that the library might read and this module does not."""


class Unread:
    """Whether something was not read since `clear`; then a score below 1 means nothing."""

    found = False

    def clear(self) -> None:
        self.found = False

    def note(self) -> None:
        self.found = True


UNREAD = Unread()


def install() -> None:
    """Replace `eval` and `parse_expr` in the modules of reasoning-gym whose scorers use them."""
    for name, reader in READERS.items():
        module = importlib.import_module(f"reasoning_gym.{name}")
        if reader == "eval":
            module.eval = read_integers if name in INTEGER_EVAL else read_list  # type: ignore[attr-defined]
        elif reader == "parse_expr":
            module.parse_expr = parse_expr  # type: ignore[attr-defined]
        else:
            setattr(module, reader, _Sympy(getattr(module, reader)))


class _Sympy:
    """sympy as a module sees it, with `parse_expr` replaced."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return parse_expr if name == "parse_expr" else getattr(self._module, name)


def read_list(text: str) -> object:
    """Return a list of Python's as JSON reads it; quotes may be single.

    Raises:
        ValueError: it is none.

    >>> read_list("[['a', 'b'], [1, 2]]")
    [['a', 'b'], [1, 2]]
    """
    return json.loads(text.replace("'", '"'))


def read_integers(text: str) -> Any:
    """Return the value of an arithmetic expression of integers.

    >>> read_integers("((0x10 + 2) << 1) - 1")
    35
    """
    return _value(_parse(text), lambda number: number, {})


def parse_expr(text: str, local_dict: Mapping[str, Any] | None = None) -> Any:
    """Return the expression that sympy's `parse_expr` would return.

    Raises:
        SyntaxError, ValueError, TypeError: the text is no expression, or has notation that is not read.

    >>> parse_expr("(8 - 2) * 8 / 2"), parse_expr("2*x**2 + x - x")
    (24, 2*x**2)
    """
    import sympy

    names: dict[str, Any] = {name: getattr(sympy, name) for name in (*FUNCTIONS, *CONSTANTS)}
    return _value(_parse(text), _sympy_number, names | dict(local_dict or {}))


def _sympy_number(number: Any) -> Any:
    import sympy

    return sympy.Integer(number) if isinstance(number, int) else sympy.Float(number)


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        UNREAD.found = True
        raise UnreadError(f"an expression of {len(text)} characters")
    try:
        # a name of its own, which `forbid_evaluation` lets pass: parsing compiles nothing
        return ast.parse(text.strip(), "<syntax tree>", mode="eval").body
    except SyntaxError:
        UNREAD.found |= "!" in text  # a factorial, which sympy reads
        raise


def _value(node: ast.expr, number: Callable[[Any], Any], names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return number(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        left, right = _value(node.left, number, names), _value(node.right, number, names)
        if isinstance(node.op, ast.Pow | ast.LShift):
            _refuse_large(left, right, isinstance(node.op, ast.Pow))
        return BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
        return UNARY[type(node.op)](_value(node.operand, number, names))
    if isinstance(node, ast.Name) and names:
        import sympy

        return names[node.id] if node.id in names else sympy.Symbol(node.id)
    if isinstance(node, ast.Call) and _is_function(node) and names:
        return names[node.func.id](*(_value(part, number, names) for part in node.args))  # type: ignore[attr-defined]
    UNREAD.found = True
    raise UnreadError(f"a {type(node).__name__} is not read")


def _is_function(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords


def _refuse_large(left: Any, right: Any, power: bool) -> None:
    """Refuse powers and shifts that give a huge number; the time limit would only end them later."""
    try:
        bits = abs(float(right)) * (max(1, int(abs(float(left))).bit_length()) if power else 1)
    except (TypeError, ValueError, OverflowError):
        return  # a symbol, or a number whose float is infinite
    if bits > MAX_BITS:
        UNREAD.found = True
        raise UnreadError("a number too large to compute")
