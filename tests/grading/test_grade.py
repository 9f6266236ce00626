"""Grading of full responses: extraction and verification, the three verdicts, and the answers of the math suites."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlfr_vlm.grading import Item, Reason, Verdict, grade, grade_many, verify_answer

R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED


def verdict(gold, answer, **settings):
    return verify_answer(gold=gold, answer=answer, **settings).verdict


def test_a_response_without_an_answer_is_undecided():
    result = grade(gold="7", response="5 + 2 = 7")
    assert (result.verdict, result.reason, result.extracted) == (U, Reason.NO_ANSWER, None)


@pytest.mark.parametrize("gold", ["", "   ", None, [], "???", "\\frac{1}{"])
def test_an_unreadable_gold_is_undecided(gold):
    result = grade(gold=gold, response=r"\boxed{7}")
    assert (result.verdict, result.reason) == (U, Reason.BAD_GOLD)


def test_gold_of_any_type():
    assert verdict(142.0, "142") is R  # a number from a table
    assert verdict(0.5, r"\frac{1}{2}") is R
    assert verdict(["x", "7"], "7") is R  # several acceptable golds
    assert verdict(["8", "9"], "7") is W
    assert verdict(True, "yes") is R


def test_wrong_for_one_gold_and_unreadable_for_another_is_undecided():
    assert verdict(["8", "\\frac{1}{"], "7x") is U


def test_tolerance_is_a_setting():
    assert verdict("3.14159", "3.14") is W
    assert verdict("3.14159", "3.14", tolerance=0.01) is R
    assert verdict(r"\sqrt{2}", "1.41") is W
    assert verdict(r"\sqrt{2}", "1.41", tolerance=0.01) is R
    assert verdict("1000001", "1000000") is W  # integers are exact, however large


def test_a_decimal_with_many_places_may_round_a_non_terminating_one():
    assert verdict(r"\frac{1}{3}", "0.333333") is R
    assert verdict(r"\frac{2}{3}", "0.666667") is R
    assert verdict(r"\frac{1}{3}", "0.33") is W
    assert verdict(r"\frac{1}{4}", "0.2500001") is W  # the decimal of a quarter terminates


def test_options_by_letter_text_and_value():
    options = ["12 cm", "A. 15 cm", r"\frac{1}{2}", "20 cm"]
    assert verdict("A", "12 cm", options=options) is R
    assert verdict("A", "20 cm", options=options) is W
    assert verdict("C", "0.5", options=options) is R
    assert verdict("C", r"\frac{2}{4}+0x", options=options) is R  # by algebra
    assert verdict("12 cm", "(A)", options=options) is R
    assert verdict("12 cm", "(D)", options=options) is W
    assert verdict("B", "banana") is W  # the question asks for a letter, and no options are given
    assert grade(gold="B", response="(A) is wrong, so (B).").verdict is R


def test_answer_type_text_makes_other_words_wrong():
    assert verdict("no real solutions", "there are none") is U
    assert verdict("no real solutions", "there are none", answer_type="text") is W
    assert verdict("no real solutions", "No real solutions.", answer_type="text") is R


def test_labels_do_not_shift():
    grades = grade_many([Item(gold, answer=str(i)) for i, gold in enumerate([0, "1", 2.0, None, ["4"]])])
    assert [g.verdict for g in grades] == [R, R, R, U, R]


def test_works_off_the_main_thread():
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(verdict(r"\sqrt{12}", r"2\sqrt{3}")))
    thread.start()
    thread.join()
    assert verdicts == [R]


def answers_of_suites(shared) -> list:
    files = sorted((shared / "data" / "math_suites").glob("*.jsonl"))
    return [json.loads(line)["answer"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def first_text(answer) -> str:
    return str(answer[0] if isinstance(answer, list) else answer)


def test_every_answer_of_the_math_suites_equals_itself(shared):
    answers = answers_of_suites(shared)
    assert len(answers) == 1590
    grades = grade_many([Item(answer, f"so \\boxed{{{first_text(answer)}}}") for answer in answers])
    assert [first_text(a) for a, g in zip(answers, grades, strict=True) if g.verdict is not R] == []


REWRITES = {
    "dfrac": lambda text: text.replace("\\frac", "\\dfrac"),
    "left and right": lambda text: text.replace("(", "\\left( ").replace(")", " \\right)"),
    "spaces": lambda text: f"  {text} ".replace("+", " + ").replace(",", ", "),
    "delimiters and a full stop": lambda text: f"$ {text.strip().strip('$').rstrip('.')} $.",
}


@pytest.mark.parametrize("name", REWRITES)
def test_suite_answers_equal_their_rewrites(shared, name):
    """A rewritten answer may be undecided but never wrong, and nearly all are right."""
    answers = [first_text(answer) for answer in answers_of_suites(shared) if "\\left" not in first_text(answer)]
    grades = grade_many([Item(answer, answer=REWRITES[name](answer)) for answer in answers])
    verdicts = [grade.verdict for grade in grades]
    assert [(a, g.path) for a, g in zip(answers, grades, strict=True) if g.verdict is W] == []
    assert verdicts.count(R) >= 0.99 * len(answers)


@given(
    st.integers(-(10**12), 10**12), st.sampled_from(["{}.0", "{}.00", " {} ", "{}.", "${}$", "\\text{{{}}}", "+{}"])
)
def test_spellings_of_an_integer(number, spelling):
    if number < 0 and spelling.startswith("+"):
        spelling = "{}"
    assert verdict(str(number), spelling.format(number)) is R
    assert verdict(str(number), spelling.format(number + 1)) is W


@given(st.integers(1, 999), st.integers(1, 999))
def test_fractions_in_every_spelling(top, bottom):
    for spelling in (r"\frac{%d}{%d}", r"\dfrac{%d}{%d}", "%d/%d", r"\frac{ %d }{ %d }"):
        assert verdict(f"{top}/{bottom}", spelling % (top, bottom)) is R
        assert verdict(f"{top}/{bottom}", spelling % (top + 1, bottom)) is W


def test_sign_of_zero():
    assert verdict("0", "-0") is R
    assert verdict("0", "-0.0") is R


@given(st.text(max_size=40))
def test_random_text_is_never_right(text):
    result = verify_answer(gold="123456789", answer=text)
    assert result.verdict in (W, U) or "123" in result.extraction.raw or not text.isascii()
