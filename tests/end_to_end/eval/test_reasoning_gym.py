"""`rlfr-eval lm` on a task of reasoning-gym: held-out problems, scored by the task's own scorer."""

import dataclasses
import json

import pytest

from rlfr_eval.benchmarks.text import Benchmark, resolve
from rlfr_eval.benchmarks.text_problems import read_problems
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.gym import generate

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

NAME = "reasoning_gym:prime_factorization?size=8"


def factors_in(body):
    number = int(body["messages"][-1]["content"].split("factorization of ")[1].split(".")[0])
    found = []
    for prime in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31):
        while number % prime == 0:
            found.append(prime)
            number //= prime
    return [*found, *([number] if number > 1 else [])]


def test_a_task_is_measured_with_its_scorer(serve, run_eval, scores, alone):
    """Of eight problems four get the factors in another notation than the gold's, two a wrong number, one words, at
    which the scorer raises, and one nothing."""
    order: list[str] = []

    def script(body, n):
        question = body["messages"][-1]["content"]
        place = [problem.question for problem in problems].index(question)
        order.append(question)
        if place < 4:
            return f"<answer>{'×'.join(map(str, factors_in(body)))}</answer>"
        return ["<answer>1</answer>", "<answer>1</answer>", "<answer>no idea</answer>", "I do not know."][place - 4]

    [benchmark] = resolve([NAME])
    problems = read_problems(benchmark, alone).problems
    assert benchmark.name == "reasoning_gym-prime_factorization-size-8" and len(problems) == 8
    server = serve(script)
    code, _, _ = run_eval("lm", "--base-url", server.url, "--model", "m", "--suite", NAME, "--out", "run")
    assert code == 0 and len(order) == 8
    assert server.requests[0]["messages"][0]["role"] == "user"  # the training prompt, without a system message
    [result] = scores(alone / "run")["benchmarks"].values()
    assert (result["right"], result["wrong"], result["undecided"]) == (4, 3, 1)
    code, _, _ = run_eval("regrade", "run", "--judge", "none")
    assert code == 0


def test_problems_are_held_out_and_reproducible(alone):
    [benchmark] = resolve(["reasoning_gym:chain_sum?size=5"])
    problems = read_problems(benchmark, alone)
    assert problems == read_problems(benchmark, alone)
    assert [problem.question for problem in problems.problems] == [
        row["prompt"][0]["content"] for row in generate(benchmark.task, "test")
    ]
    asked = {problem.question for problem in problems.problems}
    assert not asked & {row["prompt"][0]["content"] for row in generate(benchmark.task, "train")}


def test_mistakes_are_one_message(run_eval, alone):
    code, _, error = run_eval("fetch", NAME)
    assert code == 2 and "There is nothing to fetch: the rows of reasoning_gym:prime_factorization" in error
    with pytest.raises(UserError, match=r"Did you mean 'chain_sum'"):
        read_problems(resolve(["reasoning_gym:chain_sun"])[0], alone)
    made = {"name": "b", "title": "B", "licence": "mit", "n": 0}
    with pytest.raises(UserError, match=r"Benchmark b: task is 'chain_sum'; it is reasoning_gym:TASK"):
        Benchmark(**made, task="chain_sum")
    with pytest.raises(UserError, match="has both a task and a file of rows"):
        Benchmark(**made, task=NAME, path="rows.jsonl")


def test_the_version_of_the_scorer_is_part_of_the_verdict(monkeypatch):
    """Other benchmarks keep their verdicts, whatever version is installed."""
    [task] = resolve([NAME])
    plain = dataclasses.replace(task, task="")
    assert plain.grading() == [0.0, "wrong", "", False]
    monkeypatch.setattr("rlfr_eval.benchmarks.text.installed_version", lambda name: "9.9")
    assert task.grading() == [*plain.grading(), "reasoning-gym 9.9"]
    assert json.dumps(task.grading())
