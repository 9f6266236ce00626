"""Read LaTeX and compare what was read, with math-verify. Only ever imported in a worker process.

Three things change relative to math-verify 0.9.0. Symbols keep their case. Numerals are read without evaluating
text: sympy's own reader compiles even `7`. And the parser first tries ANTLR's fast prediction mode, which gives the
same tree or an error, and the exact mode only after an error; that halves the time.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from math_verify import parser as math_verify_parser
from sympy import And, Expr, Float, I, Intersection, Set, Union
from sympy.core import numbers as sympy_numbers
from sympy.core import sympify as sympy_reader
from sympy.core.relational import Relational

from rlfr_vlm.grading.answer_parts import is_relation
from rlfr_vlm.grading.normalise import balanced, unwrap
from rlfr_vlm.grading.rules import is_words

DIGITS = 50  # of numerical evaluation
EXACT = 1e-30  # what is left of 0 after it
NUMERIC_TOLERANCE = 1e-6  # relative; rounding noise of an answer given in decimals
# math-verify drops whatever looks like a unit, so that `6ab` reads as 6; units are ours (units.py).
LATEX = LatexExtractionConfig(
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=True
    )
)
TRIG = r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?:\^\{?-?\d\}?)?"
TRIG_DEGREES = re.compile(rf"({TRIG})\s*[({{]?\s*(-?\d+(?:\.\d+)?)\s*\^\\circ\s*[)}}]?")
TRIG_MULTIPLE = re.compile(rf"({TRIG})\s*(\d*\s*(?:[a-zA-Z](?![a-zA-Z(])|\\(?:theta|alpha|beta|phi|pi)(?![a-zA-Z])))")
_exact_prediction = False


def prepare() -> None:
    """Install the three changes in this process."""
    sympy_numbers.sympify = _read_numeral
    original = _Latex2Sympy.create_parser
    _Latex2Sympy.create_parser = _with_fast_prediction(original)


def _read_numeral(value: Any, **options: Any) -> Any:
    if not isinstance(value, str):
        return sympy_reader.sympify(value, **options)
    if re.fullmatch(r"[+-]?\d+", value):
        return sympy_numbers.Integer(int(value))
    if re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", value):
        return sympy_numbers.Float(value)
    raise sympy_reader.SympifyError(value)


def _with_fast_prediction(create: Callable[..., Any]) -> Callable[..., Any]:
    from antlr4 import PredictionMode

    def create_parser(self: Any, text: str) -> Any:
        # math-verify reads R and r as one symbol.
        self.config = replace(self.config, lowercase_symbols=False)
        parser = create(self, text)
        parser._interp.predictionMode = PredictionMode.LL if _exact_prediction else PredictionMode.SLL
        return parser

    return create_parser


@lru_cache(maxsize=4096)  # the responses of a group share their gold
def read(text: str) -> Any:
    """What the algebra reads in folded text; None when it reads nothing."""
    global _exact_prediction
    latex = for_latex(text)
    if not latex or is_words(text) or not balanced(latex):
        return None
    for _exact_prediction in (False, True):
        math_verify_parser.parse_latex_cached.cache_clear()
        # LaTeX only: math-verify's path for plain expressions evaluates text.
        found = parse(f"${latex}$", [LATEX], fallback_mode="no_fallback", parsing_timeout=None)
        if found:
            return _imaginary(found[0])
    return None


def for_latex(text: str) -> str:
    """The spelling that the LaTeX grammar reads as it is meant."""
    text = text.replace("$", "").replace("**", "^").strip()
    text = TRIG_DEGREES.sub(r"\1(\2\\cdot\\frac{\\pi}{180})", text)
    text = TRIG_MULTIPLE.sub(r"\1(\2)", text)
    return unwrap(text.replace("^\\circ", ""))


def _imaginary(found: Any) -> Any:
    """The letter i stands for the imaginary unit."""
    units = {symbol: I for symbol in getattr(found, "free_symbols", ()) if symbol.name == "i"}
    return found.subs(units) if units and isinstance(found, Expr) else found


def agree(gold: Any, answer: Any, tolerance: float) -> bool:
    """Whether two things that were read are the same."""
    numeric = _same_number(gold, answer, tolerance)
    if numeric is not None:
        return numeric
    if verify(gold=[gold], target=[answer], allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True):
        return True
    # math-verify compares a lone symbol by its name, and gives up on identities such as sin 2x = 2 sin x cos x.
    return isinstance(gold, Expr) and isinstance(answer, Expr) and bool((gold - answer).doit().equals(0))


def _same_number(gold: Any, answer: Any, tolerance: float) -> bool | None:
    """Two constants by value: exactly, unless one of them was written in decimals; None when one is no constant."""
    if not (isinstance(gold, Expr) and isinstance(answer, Expr) and gold.is_number and answer.is_number):
        return None
    gold, answer = gold.doit(), answer.doit()
    if gold == answer:
        return True
    if not (gold.is_finite and answer.is_finite):
        return False if gold.is_infinite or answer.is_infinite else None
    exact = not (gold.has(Float) or answer.has(Float)) and not tolerance
    if exact and gold.is_Rational and answer.is_Rational:
        return False
    difference, size = abs((gold - answer).evalf(DIGITS)), abs(gold.evalf(DIGITS))
    if not (difference.is_comparable and size.is_comparable):
        return None
    if exact:  # evalf works until the digits of a difference are right, however large its parts
        return bool(difference <= min(EXACT, EXACT * size))
    return bool(difference <= max(tolerance, NUMERIC_TOLERANCE) * size)


def number_set(text: str) -> tuple[str, Any] | None:
    """The set of numbers that conditions on one variable (`x < -1 or x > 3`) describe, or that the text is.

    Returns:
        The variable's name (empty for a plain set) and the set; None for any other text.
    """
    if not is_relation(text):
        found = read(text)
        is_set = isinstance(found, Set) and not getattr(found, "is_FiniteSet", False)
        return ("", found) if is_set else None
    alternatives = []
    names: set[str] = set()
    for part in re.split(r"\\text\s*\{\s*or\s*\}|\bor\b|或", text):
        conditions = [read(own.strip()) for own in re.split(r"\\text\s*\{\s*and\s*\}|\band\b|且|,", part)]
        if not all(isinstance(condition, Relational | And) for condition in conditions):
            return None
        names |= {symbol.name for condition in conditions for symbol in condition.free_symbols}
        if len(names) != 1:
            return None
        alternatives.append(Intersection(*[condition.as_set() for condition in conditions]))
    return names.pop(), Union(*alternatives)


def same_set(gold: Any, answer: Any) -> bool:
    """Whether two sets of numbers have the same members."""
    return gold == answer or gold.symmetric_difference(answer).is_empty is True
