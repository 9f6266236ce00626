"""The AUC within groups against pairs counted by hand, and its interval against a closed form."""

import pytest
import torch

from rlfr_vlm.group_auc import Pairs, share_of_wins, within_group_auc
from rlfr_vlm.stats import mean_interval


def test_auc_within_groups_by_hand():
    """Groups of 1 x 2 and 2 x 1 pairs: 2 of 2, and a tie and a loss, so 2.5 of 4; the third group has no wrong one."""
    scores = torch.tensor([5.0, 1.0, 2.0, 3.0, 0.0, 3.0, 9.0])
    wrong = torch.tensor([True, False, False, True, True, False, False])
    result = within_group_auc(scores, wrong, ~wrong, torch.tensor([0, 0, 0, 1, 1, 1, 2]))
    assert (result.value, result.groups, result.pairs) == (0.625, 2, 4)
    # residuals 2 - 1.25 and 0.5 - 1.25; variance 2 / 1 * 1.125 / 16; t(1) = 12.7, so the interval is everything
    assert (result.low, result.high) == (0.0, 1.0)


def test_auc_within_groups_has_the_interval_of_a_ratio():
    """Each group has one pair, so the value is a share: 12 of 20, and its error that of a mean of 20 numbers."""
    wins = [1.0] * 12 + [0.0] * 8
    scores = torch.tensor([number for win in wins for number in (win, 0.5)])
    wrong = torch.tensor([True, False] * 20)
    result = within_group_auc(scores, wrong, ~wrong, torch.arange(40) // 2)
    mean, low, high = mean_interval(wins)
    assert (result.value, result.low, result.high) == pytest.approx((mean, low, high)) and result.pairs == 20


def test_auc_within_groups_without_pairs_or_with_undecided_ones():
    scores, groups = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1])
    none = torch.tensor([False, False, False])
    assert within_group_auc(scores, ~none, none, groups).value is None
    one = within_group_auc(scores, torch.tensor([True, False, False]), torch.tensor([False, True, False]), groups)
    assert (one.value, one.low, one.high, one.groups) == (0.0, 0.0, 1.0, 1)


def test_only_pairs_of_like_length_count_when_lengths_are_given():
    """Wrong responses of 10 and 20 tokens, right ones of 11 and 30: 10 and 11 are alike, and no other pair."""
    scores, wrong = torch.tensor([3.0, 1.0, 2.0, 9.0]), torch.tensor([True, True, False, False])
    groups, lengths = torch.zeros(4), torch.tensor([10, 20, 11, 30])
    assert Pairs.within(wrong, ~wrong, groups).wins(scores) == [(1.0, 4)]
    assert Pairs.within(wrong, ~wrong, groups, lengths).wins(scores) == [(1.0, 1)]
    assert Pairs.within(wrong, ~wrong, groups, torch.tensor([1, 2, 4, 8])).wins(scores) == []


def test_wins_of_several_rollouts_add_up():
    """2 of 3 and 1 of 1 pairs: 3 of 4, with two groups; the interval includes 0.5 and so says nothing."""
    result = share_of_wins([(2.0, 3), (1.0, 1)])
    assert (result.value, result.groups, result.pairs, result.above_chance) == (0.75, 2, 4, False)
    assert share_of_wins([(9.0, 10), (8.0, 10), (9.0, 10)]).above_chance
    assert not share_of_wins([]).above_chance
