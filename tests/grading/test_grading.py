"""The grader's verdicts, each derived by hand."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlfr_vlm.grading import Verdict, grade, last_boxed

R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("gold", "response", "verdict"),
    [
        ("7", r"5 + 2 = 7. \boxed{7}", R),
        ("7", r"\boxed{ 7 }", R),
        ("7", r"\boxed{7.}", R),
        ("7", r"\boxed{07}", R),
        ("-3", r"\boxed{-3}", R),
        ("7", r"\boxed{8}", W),
        ("7", r"\boxed{-7}", W),
        ("70", r"\boxed{7}", W),
        ("7", "the answer is 7", W),  # nothing boxed: no other text is parsed in its place
        ("7", r"\boxed{}", W),
        ("7", r"\boxed{7", W),  # cut off inside the box
        ("7", r"first \boxed{8}, then \boxed{7}", R),  # the last box counts
        ("8", r"first \boxed{8}, then \boxed{7}", W),
        ("7", r"\boxed{7} and then cut off in \boxed{", R),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", R),
        (r"\frac{1}{2}", r"\boxed{0.5}", R),
        (r"\frac{1}{2}", r"\boxed{\frac{1}{3}}", W),
        (r"2\sqrt{3}", r"\boxed{\sqrt{12}}", R),
        (r"2\sqrt{3}", r"\boxed{2\sqrt{5}}", W),
        (r"\pi", r"\boxed{\pi}", R),
        (r"\left( 3, \frac{\pi}{2} \right)", r"\boxed{(3, \frac{\pi}{2})}", R),
        ("2^{10}", r"\boxed{2^3}", W),
        ("2^{10}", r"\boxed{1024}", R),
        ("p - q", r"\boxed{p-q}", R),
        ("", r"\boxed{7}", U),  # nothing to compare with
        ("   ", r"\boxed{7}", U),
    ],
)
def test_verdicts(gold, response, verdict):
    assert grade(gold=gold, response=response).verdict is verdict


def test_gold_that_cannot_be_parsed_is_undecided_never_right():
    found = grade(gold="???", response=r"\boxed{7}")
    assert found.verdict is U
    assert "cannot parse the gold answer '???'" in found.reason


def test_missing_gold_is_undecided():
    assert grade(gold=None, response=r"\boxed{7}").verdict is U


def test_number_gold_from_a_table():
    assert grade(gold=142.0, response=r"\boxed{142}").verdict is R


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{a{b}c}", "a{b}c"),
        (r"\fbox{x}", "x"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("no box", None),
        (r"\boxed 7", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


def test_works_off_the_main_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(grade(gold=r"\sqrt{12}", response=r"\boxed{2\sqrt{3}}").verdict)
    )
    thread.start()
    thread.join()
    assert found == [R]


@pytest.mark.parametrize("name", ["aime24", "aime25", "amc23", "math500"])
def test_answers_of_the_math_suites_equal_themselves(shared, name):
    import json

    lines = (shared / "data" / "math_suites" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        answer = str(json.loads(line)["answer"])
        assert grade(gold=answer, response=rf"so \boxed{{{answer}}}").verdict is R, answer


@given(st.text(max_size=60))
def test_any_text_gets_a_verdict(text):
    assert grade(gold="7", response=text).verdict in (R, W)
    assert isinstance(last_boxed("\\boxed{" + text), str | None)
