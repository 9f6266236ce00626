"""Rows of reasoning-gym tasks: reproducible, and with held-out seeds for the split test."""

import random

import pytest

from rlfr_vlm.data.load import load_rows, read_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.gym import generate
from rlfr_vlm.grading.gym.entry import unpack
from rlfr_vlm.grading.gym.generator import ANY_ANSWER, FORMAT, rows_of
from rlfr_vlm.grading.gym.rows import MAX_ROWS, first_seed
from rlfr_vlm.options import DataOptions

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

NAME = "reasoning_gym:chain_sum?max_terms=2&max_digits=1&size=8"


def test_no_training_seed_is_a_test_seed_whatever_the_runs_seed():
    """Entry i has the seed first + i: training ends below 2**31, where the test begins; numpy takes up to 2**32."""
    runs = [0, 1, 42, 2047, 2048, 123_456_789]
    assert max(first_seed("train", seed) + MAX_ROWS - 1 for seed in runs) == 2**31 - 1
    assert min(first_seed("test", seed) for seed in runs) == 2**31
    assert max(first_seed("test", seed) + MAX_ROWS - 1 for seed in runs) == 2**32 - 1
    assert first_seed("train", 1) - first_seed("train", 0) == MAX_ROWS  # so that two runs share no entry


def test_rows_are_reproducible_and_leave_the_random_state_alone():
    """isomorphic_strings iterates over a set of texts, whose order follows from the hash seed of the process."""
    random.seed(5)
    state = random.getstate()
    name = "reasoning_gym:isomorphic_strings"
    first, again = generate(name, "train", 3, seed=1), generate(name, "train", 2, seed=1)
    assert first[:2] == again and len(first) == 3
    assert random.getstate() == state


def test_rows_have_what_training_and_the_scorer_need():
    [row] = load_rows(NAME, limit=1, columns=("prompt", "answer"))
    question, empty, request = row["prompt"][0]["content"].rsplit("\n", 2)
    left, sign, right = question.removesuffix(" =").split(": ")[1].split()
    assert empty == "" and request == FORMAT == "Put the final answer between <answer> and </answer>."
    assert int(row["answer"]) == int(left) + (int(right) if sign == "+" else -int(right))
    task, options, entry = unpack(row["reasoning_gym"])
    assert (task, options) == ("chain_sum", {"max_terms": "2", "max_digits": "1"})
    assert entry["answer"] == row["answer"] and entry["metadata"]["difficulty"]["num_terms"] == (2, 2)
    assert row["source"] == "reasoning_gym/chain_sum"


def test_the_smaller_of_size_and_limit_counts():
    assert len(read_rows(DataOptions(dataset_name=NAME)).indices) == 8
    assert len(read_rows(DataOptions(dataset_name=NAME, dataset_limit=3)).indices) == 3


def test_an_answer_that_looks_like_a_list_stays_a_text():
    [row] = load_rows("reasoning_gym:number_sorting", limit=1, columns=("prompt", "answer"))
    assert isinstance(row["answer"], str) and row["answer"].startswith("[")


def test_a_task_whose_entries_have_no_answer_says_so():
    [row] = rows_of("rush_hour", {}, 1, 0)
    assert row["answer"] == ANY_ANSWER


def test_a_generator_that_fails_is_one_message(monkeypatch):
    monkeypatch.setattr("rlfr_vlm.grading.gym.rows.GENERATOR", "json.nothing")
    with pytest.raises(UserError, match=r"failed to generate the rows of reasoning_gym:chain_sum.*No module named"):
        generate(NAME, "train")


def test_mistakes_are_one_message():
    with pytest.raises(UserError, match="has no split 'dev'; it has train and test"):
        load_rows(NAME, split="dev")
    with pytest.raises(UserError, match="would have 2000000 rows; it can have 1048576"):
        load_rows("reasoning_gym:chain_sum?size=2000000")
    with pytest.raises(UserError, match=r"^reasoning-gym has no task 'chain_sun'. Did you mean 'chain_sum'"):
        load_rows("reasoning_gym:chain_sun")
    with pytest.raises(UserError, match=r"has no expert responses.*Draw responses with `rlfr sample --data"):
        load_rows(NAME, columns=("prompt", "response"))
