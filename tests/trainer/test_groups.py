"""Groups: their kinds, the spread filter, the stream of new prompts, the guard against undecided answers."""

import json

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import GroupOptions
from rlfr_vlm.shaping import group_spread
from rlfr_vlm.trainer.groups import GroupSelector, PromptStream, SpreadFilter, UndecidedGuard, group_kinds

NAN = float("nan")
OUTCOME = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, NAN, NAN, 1.0, NAN])


def selector(**changes) -> GroupSelector:
    return GroupSelector(GroupOptions(**changes), 2, 0.5, 10, 0)


def test_kinds_of_groups():
    kinds = {name: mask.tolist() for name, mask in group_kinds(OUTCOME, 2, 0.5).items()}
    assert kinds == {
        "right": [True, False, False, False, True],
        "mixed": [False, True, False, False, False],
        "wrong": [False, False, True, False, False],
        "undecided": [False, False, False, True, False],
    }


def test_spread_is_that_of_the_decided():
    """Of 0 and 1: sqrt(0.5). One alone, or none, has no spread."""
    torch.testing.assert_close(group_spread(OUTCOME, 2), torch.tensor([0.0, 0.5**0.5, 0.0, 0.0, 0.0]))


def test_mixed_filter_judges_the_outcome_never_the_shaped_sum():
    """The total spreads in every group (format points, say); only the group with both outcomes is kept."""
    total = OUTCOME.nan_to_num() + torch.arange(10) / 10
    keep, flat, metrics = selector(group_filter="mixed").judge(OUTCOME, total)
    assert keep.tolist() == [False, False, True, True] + [False] * 6
    assert not flat.any()
    assert metrics["groups/all_right"] == pytest.approx(0.4) and metrics["groups/all_wrong"] == pytest.approx(0.2)
    assert metrics["groups/mixed"] == metrics["groups/kept"] == pytest.approx(0.2)


def test_floor_on_the_spread():
    """1 and 1 + 1e-6 differ by rounding only."""
    total = torch.tensor([1.0, 1.0 + 1e-6, 0.0, 1.0])
    keep, flat, _ = selector(group_filter="none").judge(total, total)
    assert keep.all() and flat.tolist() == [True, True, False, False]


def test_spread_filter_records_from_six_and_filters_from_eleven():
    """Rollouts 6 to 10 record a mean spread of 1; at 11 the mean becomes 0.99 * 1 + 0.01 * 0.5 = 0.995."""
    spread_filter = SpreadFilter(beta=0.5, decay=0.99)
    for rollout in range(1, 11):
        assert spread_filter.keep(torch.tensor([100.0, 0.0] if rollout < 6 else [2.0, 0.0])).all()
        assert spread_filter.mean == (None if rollout < 6 else pytest.approx(1.0))
    keep = spread_filter.keep(torch.tensor([0.4974, 0.4976, 0.505]))  # their mean is 0.5; 0.5 * 0.995 = 0.4975
    assert spread_filter.mean == pytest.approx(0.995)
    assert keep.tolist() == [False, True, True]


def test_a_refill_is_no_rollout_of_the_filter():
    spread_filter = SpreadFilter(beta=0.5, decay=0.9, record_from=1, filter_from=1)
    spread_filter.keep(torch.tensor([1.0]))
    assert spread_filter.keep(torch.tensor([0.4, 0.6]), record=False).tolist() == [False, True]
    assert (spread_filter.rollouts, spread_filter.mean) == (1, 1.0)


def test_prompt_stream_walks_all_rows_before_it_repeats_one():
    stream = PromptStream(5, seed=3)
    first, second = stream.take(5), stream.take(5)
    assert sorted(first) == sorted(second) == list(range(5)) and first != second


def test_prompt_stream_goes_on_where_it_was():
    whole = PromptStream(5, seed=3).take(12)
    stream = PromptStream(5, seed=3)
    taken = stream.take(7)
    assert taken + PromptStream(5, seed=3, position=7).take(5) == whole


def test_processes_get_different_prompts():
    both = [selector().new_prompts(2, process, 2) for process in (0, 1)]
    assert len({*both[0], *both[1]}) == 4


def test_state_goes_on():
    before = selector(group_filter="spread")
    before.spread.record_from = 1
    before.judge(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    before.new_prompts(3, 0, 1)
    after = selector(group_filter="spread")
    after.load_state_dict(before.state_dict())
    assert after.new_prompts(4, 0, 1) == before.new_prompts(4, 0, 1)
    assert (after.spread.rollouts, after.spread.mean) == (1, pytest.approx(0.5**0.5))


def test_guard_stops_above_the_limit_and_not_before_the_window_is_full():
    guard = UndecidedGuard(limit=0.2, window=20)
    guard.check(torch.tensor([NAN] * 10))  # ten of ten, but only ten
    with pytest.raises(UserError, match=r"10 of the last 20 responses were undecided, more than undecided_limit 0\.2"):
        guard.check(torch.zeros(10))


def test_guard_looks_at_the_last_responses_only():
    guard = UndecidedGuard(limit=0.2, window=10)
    guard.check(torch.tensor([0.0] * 8 + [NAN] * 2))
    for _ in range(5):
        guard.check(torch.zeros(10))
    assert len(guard.counts) == 1
    UndecidedGuard(limit=1.0, window=1).check(torch.tensor([NAN]))  # 1 never stops


def test_the_guards_window_survives_a_checkpoint():
    """Resumed after 6 of 8 responses, the run stops where the uninterrupted one does."""
    first = UndecidedGuard(limit=0.5, window=8)
    first.check(torch.tensor([torch.nan] * 5 + [1.0]))
    second = UndecidedGuard(limit=0.5, window=8)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    with pytest.raises(UserError, match="5 of the last 8 responses were undecided"):
        second.check(torch.tensor([1.0, 0.0]))
