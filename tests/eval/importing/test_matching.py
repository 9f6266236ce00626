"""Which problem an answer belongs to, by hand."""

from pathlib import Path

import pytest

from rlfr_eval.benchmarks.text_problems import Problem
from rlfr_eval.importing.entries import AnswerFile, Entry
from rlfr_eval.importing.matching import Remark, match

LONG = "A train leaves at noon and goes at 60 km an hour. How far is it at three?"
PROBLEMS = (
    Problem("a", "What is 2 + 2?", ("4",)),
    Problem("b", "Which one\n is round?", ("B",), ("square", "circle")),
    Problem("c", "How many?", ("3",)),
    Problem("d", "How many?", ("5",)),
    Problem("e", LONG, ("180 km",)),
    Problem("f", "Twice the same", ("1",)),
    Problem("g", "Twice the same", ("1",)),
)


def found(*entries, limit=None):
    """Problem id -> place of its answers, and the other places by remark."""
    file = AnswerFile(Path("f.jsonl"), "lm-eval", "", tuple(entries))
    matches = match(PROBLEMS, [file], PROBLEMS[:limit])
    listed = {
        remark: [one.problem or one.place for one in matches.listed if one.remark is remark] for remark in Remark
    }
    return {key: entry.where for key, entry in matches.found.items()}, {
        key: some for key, some in listed.items() if some
    }


def doc(where, *texts, target="", answers=("x",), failure=""):
    return Entry(where, answers, texts=texts, target=target, failure=failure)


def asked(where, prompt, target=""):
    return Entry(where, ("x",), prompt=prompt, target=target)


def row(where, index, question=""):
    return Entry(where, ("x",), index=index, texts=(question,) if question else ())


def test_by_a_text_of_the_document_white_space_aside():
    got, listed = found(
        doc("1", "Algebra", "  What is\n2 + 2? "),
        doc("2", "Which one is round? A. square B. circle"),
        doc("3", "What is 2 + 3?"),
        doc("4", "what is 2 + 2?"),
    )
    assert got == {"a": "1", "b": "2"}
    assert listed[Remark.NO_PROBLEM] == ["f.jsonl, 3", "f.jsonl, 4"]
    assert listed[Remark.MISSING] == ["c", "d", "e", "f", "g"]


def test_the_reference_tells_equal_questions_apart():
    got, listed = found(doc("1", "How many?", target="5"), doc("2", "How many?"), doc("3", "How many?", target="9"))
    assert got == {"d": "1"} and listed[Remark.SEVERAL] == ["f.jsonl, 2", "f.jsonl, 3"]


def test_problems_that_are_alike_get_answers_in_order():
    got, listed = found(*(doc(str(i), "Twice the same", target="1") for i in range(3)))
    assert got == {"f": "0", "g": "1"} and listed[Remark.DOUBLE] == ["f"]


def test_the_first_of_two_answers_counts():
    got, listed = found(doc("1", "What is 2 + 2?"), doc("2", "What is 2 + 2?"))
    assert got == {"a": "1"} and listed[Remark.DOUBLE] == ["a"]


def test_an_entry_without_an_answer_takes_no_place():
    lost = doc("1", "What is 2 + 2?", answers=(), failure="the request failed")
    assert found(lost)[1][Remark.FAILED] == ["a"] and "a" in found(lost)[1][Remark.MISSING]
    assert found(lost, doc("2", "What is 2 + 2?"))[0] == {"a": "2"}


@pytest.mark.parametrize(
    ("index", "question", "problem", "remark"),
    [
        ("a", "What is 2 + 2?", "a", None),
        ("a", "", "a", None),
        ("a.0", "What is  2 + 2?", "a", None),
        ("z", "What is 2 + 2?", None, Remark.NO_PROBLEM),
        ("a", "What is 3 + 3?", None, Remark.OTHER_QUESTION),
    ],
)
def test_by_the_index_if_the_question_is_the_same(index, question, problem, remark):
    got, listed = found(row("1", index, question))
    assert list(got) == ([problem] if problem else []) and listed.get(remark) == (["f.jsonl, 1"] if remark else None)


def test_by_the_prompt_where_there_is_no_document():
    got, listed = found(
        asked("1", f"Look.\n{LONG}\nAnswer with a number.", "something else"),
        asked("2", "<image> What is 2 + 2? Answer briefly.", "4"),
        asked("3", "What is 2 + 2?5", "5"),
        asked("4", "Which one is round?\nA. square B. circle", "circle"),
        asked("5", "How many? Which one is round?", "3"),
        asked("6", "What is 12 + 2?", "14"),
    )
    assert got == {"e": "1", "a": "2", "b": "4"}
    assert listed[Remark.SEVERAL] == ["f.jsonl, 5"] and listed[Remark.NO_PROBLEM] == ["f.jsonl, 3", "f.jsonl, 6"]


def test_missing_problems_beyond_the_limit_are_not_listed():
    assert found(doc("1", "What is 2 + 2?"), limit=2)[1] == {Remark.MISSING: ["b"]}
