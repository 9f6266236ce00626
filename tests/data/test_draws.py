"""The order of a mixture's prompts: shares in every stretch, repeats of small sources, places to go on from."""

import math
from collections import Counter
from fractions import Fraction

import pytest

from rlfr_vlm.data.draws import Draws

# By hand, weights 7 and 3: the counts after each prompt are (1, 0) (2, 0) (2, 1) (3, 1) (4, 1) (4, 2) (5, 2) (6, 2)
# (7, 2) (7, 3). At the third, 7 / 3 < 3 / 1; at the sixth, 7 / 5 < 3 / 2; at the tenth 7 of 7 are drawn.
SEVEN_AND_THREE = [0, 0, 1, 0, 0, 1, 0, 0, 0, 1]


def test_the_order_of_sources():
    draws = Draws([[0], [1]], [Fraction("0.7"), Fraction("0.3")])
    assert draws.take(20) == SEVEN_AND_THREE * 2


@pytest.mark.parametrize("weights", [(1, 1), (5, 3, 1, 1), (1, 1000), (Fraction("0.35"), Fraction("0.21"), 3, 4, 9)])
def test_every_stretch_has_each_sources_share(weights):
    """After n prompts the count is n times the share, rounded up or down; so a stretch is less than 2 off."""
    total, sources = sum(map(Fraction, weights)), Draws([[n] for n in range(len(weights))], weights).take(3000)
    for source, weight in enumerate(weights):
        share, counts = Fraction(weight) / total, [0]
        for place, drawn in enumerate(sources):
            counts.append(counts[-1] + (drawn == source))
            assert math.floor(share * (place + 1)) <= counts[-1] <= math.ceil(share * (place + 1))
        for length in (7, 100, 1000):
            stretches = [counts[start + length] - counts[start] for start in range(0, 3000 - length, 13)]
            assert all(abs(count - share * length) < 2 for count in stretches)


def test_a_small_source_repeats_whole_passes():
    """Half of 20 prompts for 2 rows are 5 passes; half for 8 rows are one pass and 2 rows of the next."""
    small, large = ["a", "b"], list(range(8))
    drawn = Draws([small, large], [1, 1], seed=3).take(20)
    of_small, of_large = drawn[0::2], drawn[1::2]
    assert [set(of_small[start : start + 2]) for start in range(0, 10, 2)] == [{"a", "b"}] * 5
    assert sorted(of_large[:8]) == large and len(set(of_large[8:])) == 2
    assert of_large[:8] != large  # 1 of 40,320 orders


def test_by_rows_each_row_comes_once():
    members = [list(range(6)), [6, 7], [8]]
    assert sorted(Draws(members, [6, 2, 1], seed=5).take(9)) == list(range(9))


def test_rows_are_shuffled_by_the_seed_and_sources_are_not():
    members = [list(range(10)), list(range(10, 20))]
    one, same, other = (Draws(members, [1, 1], seed).take(20) for seed in (1, 1, 2))
    assert one == same != other
    assert [place // 10 for place in one] == [place // 10 for place in other] == [0, 1] * 10
    assert Draws(members, [1, 1], shuffle=False).take(6) == [0, 10, 1, 11, 2, 12]
    assert one[0::2] != [place - 10 for place in one[1::2]]  # two sources of a size have orders of their own


def test_it_goes_on_from_any_position():
    members = [list(range(5)), [5, 6], [7, 8, 9]]
    whole = Draws(members, [3, 2, 2], seed=1).take(60)
    for position in (0, 1, 13, 42):
        draws = Draws(members, [3, 2, 2], seed=1)
        draws.take(50)
        draws.position = position
        assert draws.position == position and draws.take(60 - position) == whole[position:]
    assert Counter(whole[:49])[5] + Counter(whole[:49])[6] == 14  # 2 of 7
