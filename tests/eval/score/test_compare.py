"""Paired tests on few problems: exact p-values, and what so few problems can show."""

import itertools
import math
import random

import pytest

from rlfr_eval.score.compare import compare, difference_interval, sign_flip_p, smallest_p


def test_two_problems_that_improve_show_nothing():
    """A paired bootstrap gave 0.0001; of the four sign changes, two are as far from 0."""
    assert sign_flip_p([0.5, 0.25]) == 0.5
    difference = compare("b", {"p": 0.0, "q": 0.25}, {"p": 0.5, "q": 0.5}, single=False)
    assert difference is not None and difference.p == 0.5 and difference.test == "sign-flip"


def test_all_sign_changes_are_enumerated():
    values = [0.5, -0.25, 0.125, 0.75, 0.0]
    signs = list(itertools.product((1, -1), repeat=len(values)))
    sums = [abs(sum(sign * value for sign, value in zip(row, values, strict=True))) for row in signs]
    assert sign_flip_p(values) == pytest.approx(sum(total >= sum(values) for total in sums) / len(sums))


def test_error_of_the_first_kind_at_three_problems():
    """Without a difference, p is below 0.05 in no more than 5 % of the runs; the bootstrap had 12 %."""
    source = random.Random(0)
    p_values = [sign_flip_p([source.choice((-0.5, -0.25, 0.25, 0.5)) for _ in range(3)]) for _ in range(400)]
    assert sum(p <= 0.05 for p in p_values) / len(p_values) <= 0.05


def test_many_problems_are_sampled_with_a_seed():
    values = [0.25] * 30 + [-0.25] * 10
    assert sign_flip_p(values) == sign_flip_p(values) < 0.01


def test_smallest_p_of_both_tests():
    assert [smallest_p(count) for count in (0, 1, 2, 6)] == [1.0, 1.0, 0.5, 0.03125]


def test_interval_of_a_difference_has_a_width_where_no_pair_differs():
    """Bonett and Price 2012 with t(9) = 2.2622: of ten pairs and one more for either side, variance 2 / 12."""
    low, high = difference_interval([0.0] * 10)
    assert -low == high == pytest.approx(2.262157162854099 * math.sqrt(2 / 12 / 12))
    difference = compare("b", {"p": 1.0, "q": 0.0, "r": 1.0}, {"p": 1.0, "q": 0.0, "r": 1.0}, single=True)
    assert (
        difference is not None
        and (difference.value, difference.p) == (0.0, 1.0)
        and difference.low < 0 < difference.high
    )


def test_interval_of_a_difference_by_hand():
    """Half points, three up and one down: mean 1 / 8, variance (1 + 2) / 8 - (1 / 8)^2 = 0.359375, t(5) = 2.5706."""
    half = 2.5705818366147395 * math.sqrt(0.359375 / 8)
    assert difference_interval([0.5, 0.5, 0.5, -0.5, 0.0, 0.0]) == pytest.approx((0.125 - half, 0.125 + half))
    assert difference_interval([1.0]) == (-1.0, 1.0)


def test_interval_of_a_difference_covers_at_the_edge():
    """A gain of 2 % of ten problems: the bootstrap covered a fifth, since most draws show no gain."""
    source, held = random.Random(0), 0
    for _ in range(400):
        low, high = difference_interval([float(source.random() < 0.02) for _ in range(10)])
        held += low <= 0.02 <= high
    assert held / 400 >= 0.93
