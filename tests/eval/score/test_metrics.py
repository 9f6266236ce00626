"""Scores, intervals and paired tests against closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics.coverage import shares
from rlfr_eval.schema import Sample
from rlfr_eval.score.compare import compare, holm, mcnemar, sign_flip_p
from rlfr_eval.score.metrics import (
    ProblemResult,
    accuracy,
    collect,
    has_number,
    majority,
    over_samples,
)
from rlfr_eval.score.verdicts import Standing
from rlfr_vlm.grading import Verdict
from rlfr_vlm.stats import clustered_interval, pass_at_k

R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED


def answer(sample_id, problem, number, extracted, time=0.0):
    """A sample that took four seconds."""
    return Sample(
        sample_id, "b", problem, number, "c", "", "d", extracted, "boxed", "stop", 1, 1, 4.0, 1, "m", 0, time
    )


def test_accuracy_counts_three_states():
    # four problems, one sample: right, right, wrong, undecided
    score = accuracy([ProblemResult([v]) for v in (R, R, W, U)], 1)
    assert (score["right"], score["wrong"], score["undecided"]) == (2, 1, 1)
    assert score["accuracy"] == pytest.approx(2 / 3)  # over decided
    assert score["coverage"] == 0.75
    assert (score["lower"], score["upper"]) == (0.5, 0.75)  # undecided all wrong, all right
    # Wilson for 2 of 3, by the formula: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n)
    assert score["ci95"] == pytest.approx([0.2077, 0.9385], abs=1e-4)


def test_accuracy_of_several_samples_is_the_mean_of_problems():
    score = accuracy([ProblemResult([R, R]), ProblemResult([R, W]), ProblemResult([W, U])], 2)
    assert score["accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert (score["lower"], score["upper"]) == (3 / 6, 4 / 6)
    # means 1, .5, 0: variance .25, so sqrt(.25 / 3)
    assert score["standard_error"] == pytest.approx(math.sqrt(0.25 / 3))


def test_nothing_decided_is_no_score():
    score = accuracy([ProblemResult([U])] * 3, 1)
    assert score["accuracy"] is None and (score["lower"], score["upper"]) == (0.0, 1.0) and score["coverage"] == 0


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(case):
    n, right, k = case
    samples = [True] * right + [False] * (n - right)
    draws = list(itertools.combinations(samples, k))
    assert pass_at_k(n, right, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


def test_over_samples():
    results = [ProblemResult([R, W, W, W], ["1", "2", "2", "3"]), ProblemResult([R, R, W, U], ["5", "5", "6", "7"])]
    found = over_samples(results, 4)
    assert found["pass@2"] == pytest.approx((0.5 + 1.0) / 2)  # 1 - C(3,2)/C(4,2); 3 decided, 2 right: 1 - 0
    assert found["pass@4"] == 1.0 and found["pass@4_problems_left_out"] == 1  # the second has only 3 decided
    assert found["maj@4"] == 0.5  # "2" is wrong, "5" is right
    assert over_samples([ProblemResult([R])], 1) == {}
    assert list(over_samples([ProblemResult([R] * 6, ["1"] * 6)], 6)) == ["pass@2", "pass@4", "pass@6", "maj@6"]


@pytest.mark.parametrize(
    ("verdicts", "answers", "expected"),
    [
        ([R, W], ["7", "8"], 0.5),  # a tie: the mean
        ([W, W, R], ["", "", "7"], 1.0),  # no answer is no vote
        ([R, W, R], ["7 ", "8", " 7"], 1.0),  # spaces do not split a vote
        ([U, U, R], ["x", "x", "7"], None),  # the winner is undecided
        ([W, W], ["", ""], 0.0),
        ([U], [""], None),
    ],
)
def test_majority(verdicts, answers, expected):
    assert majority(ProblemResult(verdicts, answers)) == expected


def test_collect_leaves_missing_answers_undecided():
    rows = [
        answer("a", "1", 0, "7"),
        answer("b", "1", 1, None),
        answer("c", "9", 0, "1"),  # of no problem asked for
    ]
    standing = {"a": Standing(U, R, judged=True), "b": Standing(W, W)}
    final, rules = collect(["1", "2"], 2, rows, standing)
    assert final == [ProblemResult([R, W], ["7", ""]), ProblemResult([U, U], ["", ""])]
    assert rules[0].verdicts == [U, W]


def test_mcnemar_is_the_binomial_tail():
    # 9 discordant pairs, 8 to 1: 2 (C(9,0) + C(9,1)) / 2^9
    assert mcnemar(8, 1) == pytest.approx(2 * 10 / 512)
    assert mcnemar(1, 8) == mcnemar(8, 1) and mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.02, 0.2]) == pytest.approx([0.03, 0.04, 0.2])
    assert holm([0.5, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_compare_pairs_only_what_both_decided():
    a = {"1": 0.0, "2": 1.0, "3": None, "4": 1.0, "5": 0.0}
    b = {"1": 1.0, "2": 1.0, "3": 1.0, "4": 0.0, "6": 1.0}
    found = compare("x", a, b, single=True)
    assert (found.pairs, found.left_out, found.value) == (3, 3, 0.0)
    assert (found.won, found.lost, found.p, found.test) == (("1",), ("4",), 1.0, "exact McNemar")
    assert compare("x", {"1": None}, {"1": 1.0}, single=True) is None


def test_sign_flips_of_many_problems():
    assert sign_flip_p([0.0] * 5) == 1.0
    assert sign_flip_p([0.5] * 40) == pytest.approx(1 / 10_001)  # no sampled sign change is as far from 0
    # 60 better, 40 worse: sd .98, z = .2 / (.98 / 10) = 2.04, p = .041 by the normal approximation
    assert sign_flip_p([1.0] * 60 + [-1.0] * 40) == pytest.approx(0.057, abs=0.015)


def test_speed_leaves_pauses_between_sessions_out():
    from rlfr_eval.score.scores import _active_seconds

    # answers at 10, 11, 12 s and, a day later, two more; the longest took 4 s, so gaps up to 64 s belong to the work
    rows = [answer("a", "1", 0, None, time) for time in (10.0, 11.0, 12.0, 86412.0, 86475.0)]
    assert _active_seconds(rows) == 4.0 + 1 + 1 + 63
    assert _active_seconds([]) == 0.0


def test_interval_of_several_samples_has_a_width_at_the_edges():
    """A bootstrap gave [0, 0] and [1, 1]. Ten problems that agree count as ten answers, fewer by Student's t."""
    n = 10 * (1.959964 / 2.262157) ** 2
    z2 = 1.959964**2
    low, high = clustered_interval([0.0] * 10, 4)
    assert low == 0.0 and high == pytest.approx(z2 / (n + z2), abs=1e-6)
    assert clustered_interval([1.0] * 10, 4) == pytest.approx((1 - high, 1.0), abs=1e-6)


def test_interval_of_several_samples_counts_at_most_three_answers_per_problem():
    """Problems that hardly differ would count as hundreds of answers."""
    n = 3 * 20 * (1.959964 / 2.093024) ** 2  # t of 19 degrees of freedom
    half = 1.959964 / (1 + 1.959964**2 / n) * math.sqrt(0.25 / n + 1.959964**2 / (4 * n * n))
    assert clustered_interval([0.46875, 0.53125] * 10, 32) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)


@pytest.mark.parametrize("mean", [0.05, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_coverage_at_ten_problems(mean, correlation):
    """The bootstrap covered 0.78 at the mean 0.1 and 0.69 at 0.05."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = clustered_interval(shares(random, mean, correlation, 10, 8).tolist(), 8)
        held += low <= mean <= high
    assert held / 400 >= 0.93


@pytest.mark.parametrize(
    ("undecided", "planned", "expected"), [(1, 100, True), (7, 700, True), (2, 199, False), (0, 0, False)]
)
def test_one_percent_undecided_is_not_more_than_one_percent(undecided, planned, expected):
    """1 - 0.99 is above 0.01 in floating point: 1 of 100 undecided answers hid a score."""
    results = [ProblemResult([U if number < undecided else W], [""]) for number in range(planned)]
    assert has_number(accuracy(results, 1)) is expected
