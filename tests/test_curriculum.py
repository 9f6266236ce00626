"""Success rates of prompts, their weights, and draws by weight."""

import math

import numpy as np
import pytest

from rlfr_vlm.curriculum import SuccessRates, draw


class Times:
    """A generator whose exponential times are given."""

    def __init__(self, *times: float) -> None:
        self.times = np.array(times)

    def exponential(self, size: int) -> np.ndarray:
        assert size == len(self.times)
        return self.times


@pytest.mark.parametrize(("decay", "rate"), [(0.0, 6 / 8), (0.5, 7 / 12), (1.0, 8 / 16)])
def test_earlier_responses_count_less(decay, rate):
    """2 of 8 right, then 6 of 8: (2 d + 6) / (8 d + 8)."""
    rates = SuccessRates(3, decay)
    rates.record(1, 2, 8)
    rates.record(1, 6, 8)
    assert rates.estimates()[1] == rate and np.isnan(rates.estimates()[[0, 2]]).all()


def test_undecided_responses_change_no_rate():
    """3 of 6 decided of 8, then none decided; another prompt never has a decided one."""
    rates = SuccessRates(2, 0.5)
    rates.record(0, 3, 6)
    rates.record(0, 0, 0)
    rates.record(1, 0, 0)
    assert (rates.estimates()[0], rates.decided[0]) == (0.5, 6) and math.isnan(rates.estimates()[1])
    assert rates.tried.all()


def test_weights_are_one_in_the_band_and_before_the_first_try_else_the_floor():
    rates = SuccessRates(7, 0.5)
    for prompt, (right, decided) in enumerate([(0, 8), (1, 10), (2, 10), (8, 10), (9, 10), (0, 0)]):
        rates.record(prompt, right, decided)
    assert rates.weights(0.2, 0.8, 0.1).tolist() == [0.1, 0.1, 1, 1, 0.1, 0.1, 1]
    assert rates.in_band(0.2, 0.8).tolist() == [False, False, True, True, False, False, False]


def test_the_smallest_time_over_weight_is_drawn_first():
    """1 / 1, 0.2 / 0.1, 3 / 1, 0.4 / 1 are 1, 2, 3, 0.4."""
    weights, times = np.array([1, 0.1, 1, 1]), Times(1, 0.2, 3, 0.4)
    assert draw(weights, 3, times).tolist() == [3, 0, 1]
    assert draw(weights, 0, times).tolist() == []


def test_a_prompt_at_the_floor_comes_first_in_its_share_of_draws():
    """Weights 1 and 0.1: one draw in 11. Of 11,000 draws 1,000, give or take four deviations of 30."""
    generator = np.random.default_rng(0)
    first = [draw(np.array([1, 0.1]), 1, generator)[0] for _ in range(11_000)]
    assert abs(sum(first) - 1000) < 120
