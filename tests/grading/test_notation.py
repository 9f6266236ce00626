r"""Notations that look like arithmetic, in both directions: none may be right because of what a parser makes of it."""

import pytest

from rlfr_vlm.grading import Item, Reason, Verdict, grade, grade_many, verify_answer

R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED

DIFFERENT = {
    "clock": [("3:00", "5:00"), ("2:00", "14:00"), ("9:05", "9:50"), ("3:00 PM", "3:00 AM"), ("1:30:00", "1:03:00")],
    "clock and number": [("5:00", "5"), ("3:00", "3"), ("12:00", "0")],
    "ratio": [("12:4:1", "3:1:1"), ("2:3:4", "2:4:3"), ("1:2", "2:1"), ("1:2:3", "1:2"), (r"1:\pi", r"\pi:1")],
    "date": [("2024-01-05", "2024-05-01"), ("2024-01-05", "2018"), ("July 4, 1776", "July 5, 1776")],
    "years": [("1998-2001", "-3"), ("1914-1918", "1914-1919")],
    "score": [("3-2", "1"), ("3-2", "2-3"), ("21-19", "2")],
    "function": [
        (r"\gcd(a,b)", "1"), (r"\gcd(m,n)", r"\operatorname{lcm}(m,n)"), ("f(2)", "2f"), ("f(0)", "f(4)"),
        (r"\phi(n)", "n"), ("n!!", "(n!)!"), (r"f^{-1}(x)", r"\frac{1}{f(x)}"), (r"\gamma^2-1", r"\gamma^2-2"),
    ],
    "vector": [
        (r"\vec a\cdot\vec b", r"\vec a\times\vec b"), (r"\vec{a}\times\vec{b}", r"\vec{b}\times\vec{a}"),
        (r"\mathbf{a}\cdot\mathbf{b}", r"\mathbf{a}\times\mathbf{b}"),
        (r"\overrightarrow{AB}", r"\overrightarrow{BA}"),
    ],
    "matrix": [
        ("A^T", "A"), (r"A^{\top}B", r"B^{\top}A"), ("AB", "BA"), ("ABC", "ACB"), ("A^{-1}BA", "B"),
        ("(AB)^{-1}", "A^{-1}B^{-1}"), (r"3\times 4", r"4\times 3"),
    ],
    "comma": [
        ("1, 234", "1234"), ("32349", "32, 349"), ("0,123", "123"), ("12,34", "1234"), ("1,2345", "12345"),
        ("100, 200", "100200"),
    ],
    "left side": [
        ("f(0)=0", "f(4)=0"), ("x=3", "y=3"), ("P(A)=0.5", "P(B)=0.5"), ("a_1=2", "a_2=2"),
        (r"\log_2 32=5", r"\log_2 32=6"),
    ],
    "sentence": [
        ("The largest n is 34", "The smallest n is 34"), ("x=2 and we are done", "x=3 and we are done"),
        ("9", "x is not 9"),
        ("9", "The answer is at least 9"), (r"\cos t=0 when t is even", r"\cos t=1 when t is even"),
    ],
    "unit": [("2", "2 dozen"), (r"\sqrt{2}\text{ m}", r"\sqrt{2} cm"), (r"36\pi", r"36\pi r"), ("5", "5 or more")],
    "domain": [(r"\sqrt{x^2}", "x"), ("|x|", "x"), (r"(-1)^{2n}", "-1"), (r"\sin x^2", r"\sin^2 x")],
}  # fmt: skip
PAIRS = [(kind, *pair) for kind, pairs in DIFFERENT.items() for pair in pairs]


@pytest.fixture(scope="module")
def verdicts():
    both = [pair for _, *pair in PAIRS] + [pair[::-1] for _, *pair in PAIRS]
    return [grade.verdict for grade in grade_many([Item(gold, answer=answer) for gold, answer in both])]


def test_different_answers_are_right_in_no_direction(verdicts):
    found = [(pair, verdict) for pair, verdict in zip([*PAIRS, *PAIRS], verdicts, strict=True) if verdict is R]
    assert found == []


SAME = [
    ("3:05 p.m.", "15:05"), ("2:3:4", "4:6:8"), ("6:4", "3:2"), (r"1:\sqrt{2}", r"\sqrt{2}:2"),
    ("3:4", r"\frac{3}{4}"), ("AB+C", "C+AB"),
    ("2024-01-05", "January 5, 2024"), ("1914-1918", "1914–1918"), (r"2\gcd(a,b)", r"\gcd(a,b)\cdot 2"),
    (r"\ln(ab)", r"\ln a+\ln b"), (r"\sqrt{ab}", r"\sqrt{a}\sqrt{b}"), ("f(x)=2x", "f(t)=2t"), ("y=2x+1", "2x-y+1=0"),
    (r"B^{-1}=\begin{bmatrix}3&7\\5&1\end{bmatrix}", r"\begin{pmatrix}3&7\\5&1\end{pmatrix}"), ("15 (books)", "15"),
    (r"\sqrt{2}\approx 1.41", r"\sqrt{2}"), (r"\int_0^1 5dx = 5", "5"), (r"a \ne 2", "2 != a"),
]  # fmt: skip


def test_equal_answers_are_right_in_both_directions():
    both = SAME + [(answer, gold) for gold, answer in SAME]
    grades = grade_many([Item(gold, answer=answer) for gold, answer in both])
    assert [(pair, g.verdict) for pair, g in zip(both, grades, strict=True) if g.verdict is not R] == []


@pytest.mark.parametrize(
    ("gold", "answer", "reason"),
    [
        ("3.14", "3,14", Reason.SEPARATORS), ("1234", "1, 234", Reason.SEPARATORS),
        ("1/2/2024", "2/1/2024", Reason.NOTATION),
        ("0.33", r"\frac{1}{3}", Reason.ROUNDED), ("3.14", r"\pi", Reason.ROUNDED),
        ("3", r"\sqrt{x} = 3", Reason.LEFT_SIDE), ("7", r"\prod_{i=1}^{\infty} i", Reason.TOO_LARGE),
        ("x", r"\sqrt{x^2}", Reason.NOT_PROVED), ("x", "10^{10^{10}}", Reason.TOO_LARGE),
        ("AB", "BA", Reason.NOTATION),
        (r"(\pm 1, \pm 2)", "(1,2), (-1,-2)", Reason.NOTATION),
    ],
)  # fmt: skip
def test_reasons_of_undecided_notations(gold, answer, reason):
    result = verify_answer(gold=gold, answer=answer)
    assert (result.verdict, result.reason) == (U, reason)


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        # 3/5 = 3/4 is about numbers, and 13/15 is neither
        (r"\frac{13}{15}", r"\frac{1 + 2}{3 + 2} = \frac{3}{4}", W), ("(3, 4)", r"(2\sqrt{2})^{2} = 4\sqrt{2}", W),
        (r"\frac{3}{4}", r"\frac{1 + 2}{3 + 2} = \frac{3}{4}", U), (r"\frac{3}{5}", r"\frac{3}{5} = \frac{3}{4}", U),
        (r"\frac{13}{15}", r"\frac{2}{3} + \frac{1}{5} = 0.87", U),  # a rounded member
        (r"\frac{\pi}{4}", r"\tan\theta = 1", U), ("108", "\\sqrt{4x^2} = 216", U),  # not about numbers alone
        # 52 in base 8 is 42
        ("52_8", "32400", W), ("52_8", "8", W), ("52_8", "52", U), ("52_8", "42", U), ("42", "52_8", U),
        ("52_8", "42.0", U), ("A_1", "7", U), ("11_2", "0011", U), ("11_2", "4", W),
    ],
)  # fmt: skip
def test_what_is_wrong_in_every_reading_is_wrong(gold, answer, verdict):
    assert verify_answer(gold=gold, answer=answer).verdict is verdict


def test_a_letter_and_a_text_that_disagree_are_undecided():
    options = ["3 cm", "5 cm", "7 cm"]
    result = verify_answer(gold="A", answer="A. 5 cm", options=options)
    assert (result.verdict, result.reason) == (U, Reason.OPTION_TEXT)
    assert verify_answer(gold="A", answer="B. 3 cm", options=options).verdict is U
    assert verify_answer(gold="A", answer="A. 3 cm", options=options).verdict is R
    assert verify_answer(gold="A", answer="B. 5 cm", options=options).verdict is W
    assert verify_answer(gold="(A) 3 cm", answer="A. 5 cm").verdict is U


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (r"so $\boxed{1}$ and $\boxed{-2}$", R), (r"\boxed{-2}, \boxed{1}", R),
        (r"x = \boxed{1} or x = \boxed{-2}", R),
        (r"\boxed{1}", W), (r"\boxed{1} and \boxed{2}", W), (r"first \boxed{1}. Then \boxed{-2}", W),
        (r"\boxed{-2, 1}, that is \boxed{-2, 1}", R),
    ],
)  # fmt: skip
def test_boxes_that_are_joined_form_a_list(response, verdict):
    assert grade(gold="1, -2", response=response).verdict is verdict


def test_a_repeated_box_is_one_answer():
    assert grade(gold="7", response=r"\boxed{7}, \boxed{7}").verdict is R
