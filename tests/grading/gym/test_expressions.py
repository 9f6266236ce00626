"""Expressions in answers are read without evaluating text."""

import pytest
import sympy

from rlfr_vlm.grading.gym.expressions import READERS, UNREAD, UnreadError, parse_expr, read_integers, read_list

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")


@pytest.mark.parametrize(
    "text",
    [
        "49*(85 - 1)/14 - 42 - 73",
        "8/3",
        "-2**-2",
        "0.5 + 1",
        "2*x**2 - 3*x*y + 1",
        "exp(2*x)*sin(x)/4 + C",
        "log(x)",
        "sqrt(12)",
        "pi*E",
        "x - x",
        "Abs(-3)",
    ],
)
def test_expressions_are_what_sympy_reads(text):
    UNREAD.clear()
    assert parse_expr(text) == sympy.parse_expr(text) and not UNREAD.found


def test_given_names_are_used():
    x = sympy.Symbol("x", positive=True)
    assert parse_expr("2*x + C", local_dict={"x": x, "C": sympy.Integer(1)}) == 2 * x + 1


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(lambda: 1)()",
        "x.__class__",
        "[1 for _ in range(9)]",
        "9**9**9",
        "eval('1')",
        "1 << 99999",
        "4!",
        "1 if 1 else 2",
        "'a'*9",
        "1" * 3000,
    ],
)
def test_other_notation_is_noted_as_unread(text):
    UNREAD.clear()
    with pytest.raises((UnreadError, SyntaxError)):
        parse_expr(text)
    assert UNREAD.found


def test_words_are_no_expression_and_wrong():
    """sympy reads none in them either, so that the scorer's verdict stands."""
    UNREAD.clear()
    with pytest.raises(SyntaxError):
        parse_expr("I give up")
    assert not UNREAD.found


def test_integers_and_lists():
    assert read_integers("((0x10 + 2) << 1) - 1") == 35
    with pytest.raises(UnreadError):
        read_integers("x + 1")
    assert read_list("[['1', 2], [3]]") == [["1", 2], [3]]
    with pytest.raises(ValueError, match="Expecting value"):
        read_list("__import__('os')")


def test_every_module_that_evaluates_answers_is_listed():
    """Read in reasoning-gym 0.1.25: other calls are in generators, on the library's own text."""
    import re
    from pathlib import Path

    import reasoning_gym

    root = Path(reasoning_gym.__file__).parent
    call = re.compile(
        r"(?<![\w.])(?:eval|exec|sympify)\(|(?:sympy|sp)\.(?:parse_expr|sympify)\(|from \S+ import parse_expr"
    )
    generators = {"code.codeio", "arithmetic.basic_arithmetic"}
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in root.rglob("*.py")
        if call.search(path.read_text(encoding="utf-8"))
    }
    assert {name for name in found if "gsm_symbolic" not in name} - generators == set(READERS)
