"""Parse LaTeX into SymPy objects with math-verify. Only worker processes import this module.

It changes three things relative to math-verify 0.9.0:
- Symbols keep their case.
- Numerals are read without evaluating text. sympy's own reader compiles even `7`.
- The parser first tries ANTLR's fast prediction mode, which gives the same tree or an error, and the exact mode only
  after an error. This halves the time.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TypeAlias

from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse
from math_verify import parser as math_verify_parser
from sympy import Basic, Expr, I, MatrixBase
from sympy.core import numbers as sympy_numbers
from sympy.core.sympify import SympifyError, sympify

from rlfr_vlm.grading.normalise import balanced, unwrap
from rlfr_vlm.grading.words import is_words

Parsed: TypeAlias = Basic | MatrixBase

# math-verify drops anything that looks like a unit, so `6ab` would become 6. Units are handled in units.py.
LATEX = LatexExtractionConfig(
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=True
    )
)
TRIG = r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z])(?:\^\{?-?\d\}?)?"
TRIG_DEGREES = re.compile(rf"({TRIG})\s*[({{]?\s*(-?\d+(?:\.\d+)?)\s*\^\\circ\s*[)}}]?")
TRIG_MULTIPLE = re.compile(rf"({TRIG})\s*(\d*\s*(?:[a-zA-Z](?![a-zA-Z(])|\\(?:theta|alpha|beta|phi|pi)(?![a-zA-Z_])))")
# The grammar cannot read commands in an index, nor an E with an index. It takes \gamma for the gamma function, even in
# \gamma^2 - 1.
MISREAD = (
    (re.compile(r"\\gamma(?![a-zA-Z])(?!\s*_)"), "q_{8001}"),
    (re.compile(r"_\s*(?:\{\s*\\([a-zA-Z]+)\s*\}|\\([a-zA-Z]+))"), r"_{\1\2}"),
    (re.compile(r"(?<![A-Za-z\\])E\s*_\s*\{?(\w+)\}?"), r"q_{8002\1}"),
    (re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?![a-zA-Z]))\s*([a-zA-Z])\s*\^\s*(\{[^{}]*\}|\w)"), r"\1(\2^\3)"),
)
_exact_prediction = False


def patch_libraries() -> None:
    """Apply the three changes to sympy and math-verify in this process."""
    sympy_numbers.sympify = _read_numeral
    original = _Latex2Sympy.create_parser
    _Latex2Sympy.create_parser = _with_fast_prediction(original)


def _read_numeral(value: object, **options: object) -> Basic:
    if not isinstance(value, str):
        return sympify(value, **options)
    if re.fullmatch(r"[+-]?\d+", value):
        return sympy_numbers.Integer(int(value))
    if re.fullmatch(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", value):
        return sympy_numbers.Float(value)
    raise SympifyError(value)


def _with_fast_prediction(original: Callable[..., object]) -> Callable[..., object]:
    from antlr4 import Parser, PredictionMode

    def create_parser(self: _Latex2Sympy, text: str) -> Parser:
        # math-verify lowercases symbols by default, so that R and r would be the same symbol.
        self.config = replace(self.config, lowercase_symbols=False)
        parser: Parser = original(self, text)
        parser._interp.predictionMode = PredictionMode.LL if _exact_prediction else PredictionMode.SLL
        return parser

    return create_parser


@lru_cache(maxsize=4096)  # responses of a group share their gold
def parse_latex(text: str) -> Parsed | None:
    """Parse normalised text into a SymPy object; None if it cannot be parsed."""
    global _exact_prediction
    latex = latex_for_parser(text)
    if not latex or is_words(text) or not balanced(latex):
        return None
    for _exact_prediction in (False, True):
        math_verify_parser.parse_latex_cached.cache_clear()
        # Use the LaTeX parser only: math-verify's parser of plain expressions evaluates text.
        results = parse(f"${latex}$", [LATEX], fallback_mode="no_fallback", parsing_timeout=None)
        if results:
            return _with_imaginary_unit(results[0])
    return None


def latex_for_parser(text: str) -> str:
    """Rewrite LaTeX that the grammar would misread, such as degrees and multiples of an angle in sines."""
    text = text.replace("$", "").replace("**", "^").strip()
    text = re.sub(r"(?<!\\)%", r"\\%", text)
    for pattern, replacement in MISREAD:
        text = pattern.sub(replacement, text)
    text = TRIG_DEGREES.sub(r"\1(\2\\cdot\\frac{\\pi}{180})", text)
    text = TRIG_MULTIPLE.sub(r"\1(\2)", text)
    return unwrap(text.replace("^\\circ", ""))


def _with_imaginary_unit(parsed: Parsed) -> Parsed:
    """Replace the symbol i by the imaginary unit."""
    units = {symbol: I for symbol in getattr(parsed, "free_symbols", ()) if symbol.name == "i"}
    return parsed.subs(units) if units and isinstance(parsed, Expr) else parsed
