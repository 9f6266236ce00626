"""The embedded task word_problems: exact answers, disjoint splits, rows that follow from the seed."""

import re
from itertools import islice

import pytest

from rlfr_vlm.data.load import load_rows
from rlfr_vlm.data.word_problems import KINDS, load_word_problems, split_of, word_problems
from rlfr_vlm.grading import Verdict, grade


def test_each_working_has_the_answer_and_the_question_its_numbers():
    for row in islice(word_problems(seed=0), 300):
        a, operation, b, result = re.fullmatch(
            r"(\d+) ([+-]) (\d+) = (\d+)\. The answer is \4\.", row["response"]
        ).groups()
        assert int(a) + (1 if operation == "+" else -1) * int(b) == int(result) == int(row["answer"])
        assert {a, b} <= set(re.findall(r"\d+", row["prompt"][-1]["content"]))
        assert row["answer"] and row["prompt"][0]["content"] == "What is 3 + 14?"


def test_kinds_take_turns_and_no_question_repeats():
    rows = list(islice(word_problems(seed=3), 120))
    assert [row["kind"] for row in rows[:4]] == [*(kind.__name__ for kind in KINDS), KINDS[0].__name__]
    assert len({row["prompt"][-1]["content"] for row in rows}) == 120


def test_splits_are_disjoint_and_a_smaller_size_gives_the_first_rows():
    train, test = (load_word_problems(split, 400, seed=1) for split in ("train", "test"))
    questions = [{prompt[-1]["content"] for prompt in part["prompt"]} for part in (train, test)]
    assert len(train) == len(test) == 400 and not questions[0] & questions[1]
    assert all(split_of(question) == "test" for question in questions[1])
    assert load_word_problems("train", 7, seed=1)["answer"] == train["answer"][:7]
    assert load_word_problems("train", 7, seed=2)["answer"] != train["answer"][:7]


def test_no_more_rows_than_there_are_problems():
    rows = load_word_problems("test", 10_000)
    assert 1000 < len(rows) < 2000
    with pytest.raises(ValueError, match="'dev'"):
        load_word_problems("dev")


def test_the_expert_response_is_graded_right():
    [row] = load_rows("word_problems", limit=1, columns=("prompt", "answer", "response"))
    assert grade(gold=row["answer"], response=row["response"]).verdict is Verdict.RIGHT
    assert grade(gold=row["answer"], response="The answer is 999.").verdict is Verdict.WRONG
