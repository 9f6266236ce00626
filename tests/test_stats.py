"""Intervals against published or hand-derived values; doctests show the simplest ones."""

import math

import pytest
import torch

from rlfr_vlm.stats import auc, auc_interval, mean_interval, paired_difference, pass_at_k, wilson_interval


def test_wilson_interval_of_nothing_and_of_extremes():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(0, 10)
    assert low == 0.0 and high == pytest.approx(0.2775, abs=1e-4)  # z^2 / (n + z^2)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)


def test_auc_counts_pairs():
    # pairs (3,1) (3,2) (2,1) are won, (2,2) is a tie, of 4
    assert auc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == pytest.approx(3.5 / 4)
    assert auc(torch.tensor([1.0]), torch.tensor([2.0])) == 0.0
    assert auc(torch.tensor([]), torch.tensor([1.0])) is None


def test_auc_interval_by_hanley_and_mcneil():
    # AUC 0.5 of 1 and 1: Q1 = Q2 = 1/3, variance = 0.25, so the interval is all of [0, 1]
    assert auc_interval(0.5, 1, 1) == (0.0, 1.0)
    # 0.5 with m = n = 100: variance = (0.25 + 99/12 + 99/12) / 10^4
    half = 1.959963984540054 * math.sqrt((0.25 + 2 * 99 / 12) / 1e4)
    assert auc_interval(0.5, 100, 100) == pytest.approx((0.5 - half, 0.5 + half))


def test_mean_interval_is_students():
    # two values 0 and 2: mean 1, standard error 1, t(0.975, 1) = 12.706
    mean, low, high = mean_interval([0.0, 2.0])
    assert (mean, low, high) == pytest.approx((1.0, 1 - 12.7062, 1 + 12.7062), abs=1e-3)
    with pytest.raises(ValueError, match="at least two"):
        mean_interval([1.0])


def test_pass_at_k_by_hand():
    # 1 - C(n - c, k) / C(n, k)
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at_k(5, 2, 2) == pytest.approx(1 - 3 / 10)
    assert pass_at_k(8, 3, 4) == pytest.approx(1 - 5 / 70)
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 2, 3) == 1.0  # three draws of four with two wrong ones hold a right one


def test_paired_difference_takes_the_seeds_that_both_have():
    """Differences 0.1 and 0.3 of seeds 1 and 4: half the interval is tan(0.475 pi) times 0.1."""
    found = paired_difference({1: 0.5, 2: 0.9, 3: None, 4: 0.8}, {4: 0.5, 1: 0.4, 3: 0.1, 5: 0.2})
    assert found is not None and found["seeds"] == [1, 4] and found["per_seed"] == pytest.approx([0.1, 0.3])
    half = math.tan(0.475 * math.pi) * 0.1
    assert found["mean"] == pytest.approx(0.2) and found["ci95"] == pytest.approx([0.2 - half, 0.2 + half])


def test_paired_difference_of_one_pair_and_of_none():
    assert paired_difference({1: 0.75}, {1: 0.5}) == {"seeds": [1], "per_seed": [0.25], "mean": 0.25, "ci95": None}
    assert paired_difference({1: 0.75, 2: None}, {2: 0.5, 3: 0.1}) is None
