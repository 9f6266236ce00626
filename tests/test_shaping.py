"""Flow rewards step by step, with numbers derived by hand; doctests in the module show the simplest cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_vlm.shaping import (
    flow_rewards,
    keep_above,
    keep_top_k,
    normalise_deviation,
    response_rewards,
    returns_to_go,
    schedule_factor,
    shape_advantages,
)


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


def mask(*values: int) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.bool)


def test_min_max_uses_the_smallest_valid_value_not_the_second():
    # The release took the second distinct value as the minimum; here 2 is the minimum: (5-2)/(8-2) = 0.5.
    assert normalise_deviation(row(2, 5, 8, 100), mask(1, 1, 1, 0), two_sided=False).tolist() == [[0, 0.5, 1, 0]]


@pytest.mark.parametrize("two_sided", [True, False])
def test_constant_single_and_empty_rows_are_zero_not_nan(two_sided):
    scores = torch.tensor([[3.0, 3.0, 3.0], [7.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    valid = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    assert normalise_deviation(scores, valid, two_sided).tolist() == [[0.0] * 3] * 3


def test_rows_are_normalised_on_their_own():
    scores = torch.tensor([[0.0, 1.0], [0.0, 100.0]])
    assert normalise_deviation(scores, torch.ones(2, 2)).tolist() == [[-1, 1], [-1, 1]]


def test_threshold_is_strict():
    assert keep_above(row(0.5, -0.5, 0.75, -0.75), 0.5).tolist() == [[0, 0, 0.75, -0.75]]


def test_top_k_two_sided_keeps_half_per_side():
    values = row(0.9, 0.8, 0.7, -1.0, -0.65)
    assert keep_top_k(values, 4).tolist() == row(0.9, 0.8, 0, -1.0, -0.65).tolist()
    assert keep_top_k(values, 3).tolist() == row(0.9, 0, 0, -1.0, 0).tolist()  # 3 // 2 = 1 per side
    assert keep_top_k(values, 1).tolist() == [[0.0] * 5]  # 1 // 2 = 0 per side


def test_top_k_one_sided_off_and_larger_than_the_row():
    values = row(0.9, 0.8, 0.7)
    assert keep_top_k(values, 2, two_sided=False).tolist() == row(0.9, 0.8, 0).tolist()
    for k in (0, -1, 100):
        assert keep_top_k(values, k, two_sided=False).tolist() == values.tolist()
    assert keep_top_k(values, 0).tolist() == values.tolist()


def test_low_deviation_is_rewarded_and_high_penalised():
    # two-sided: 1..5 -> -1, -.5, 0, .5, 1; above 0.4 all but the middle; times -0.01
    scores, valid = row(1, 2, 3, 4, 5), mask(1, 1, 1, 1, 1)
    rewards = flow_rewards(scores, valid, coef=0.01, threshold=0.4, top_k=0)
    torch.testing.assert_close(rewards, row(0.01, 0.005, 0.0, -0.005, -0.01))
    one_sided = flow_rewards(scores, valid, coef=0.01, threshold=0.6, top_k=0, two_sided=False)
    torch.testing.assert_close(one_sided, row(0, 0, 0, -0.0075, -0.01))


def test_return_to_go():
    assert returns_to_go(row(1, 2, 3)).tolist() == [[6, 5, 3]]
    assert returns_to_go(row(1, 2, 4), 0.5).tolist() == [[3, 4, 4]]  # 1 + .5*2 + .25*4; 2 + .5*4; 4
    torch.testing.assert_close(returns_to_go(row(1, 2, 3), 1 - 1e-9), row(6.0, 5.0, 3.0))


def test_shaped_advantage_adds_the_return_and_leaves_padding_exactly_zero():
    advantages = shape_advantages(torch.tensor([1.0, -1.0]), torch.tensor([[0.5, -0.25, 0], [0, 0, 0.0]]),
                                  torch.tensor([[1, 1, 0], [1, 1, 1]]))  # fmt: skip
    assert advantages.tolist() == [[1.25, 0.75, 0.0], [-1.0, -1.0, -1.0]]


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=12),
    valid=st.lists(st.booleans(), min_size=12, max_size=12),
    two_sided=st.booleans(),
    top_k=st.integers(0, 14),
)
def test_rewards_are_finite_bounded_and_zero_outside_the_mask(scores, valid, two_sided, top_k):
    values, kept = torch.tensor([scores]), torch.tensor([valid[: len(scores)]])
    rewards = flow_rewards(values, kept, coef=0.01, threshold=0.6, top_k=top_k, two_sided=two_sided)
    assert rewards.isfinite().all()
    assert rewards.abs().max() <= 0.01 + 1e-8
    assert (rewards[~kept] == 0).all()
    if not two_sided:
        assert (rewards <= 0).all()
    if top_k > 0:
        assert (rewards != 0).sum() <= top_k


def test_response_rewards_by_hand():
    """Group 1: statistics 1, 2, 6 of decided responses have mean 3 and standard deviation sqrt(7)."""
    nan = float("nan")
    statistic = torch.tensor([1.0, 2.0, 6.0, 50.0, 7.0, 9.0, 8.0, 8.0])
    outcome = torch.tensor([1.0, 0.0, 0.0, nan, 1.0, 1.0, 1.0, nan])
    expected = [2 * 0.5 / 7**0.5, 1 * 0.5 / 7**0.5, -3 * 0.5 / 7**0.5, 0.0]
    skipped = response_rewards(statistic, outcome, 4, coef=0.5, threshold=0.5, skip_uniform=True)
    assert skipped.tolist() == pytest.approx([*expected, 0, 0, 0, 0])
    every = response_rewards(statistic, outcome, 4, coef=0.5, threshold=0.5, skip_uniform=False)
    assert every.tolist() == pytest.approx([*expected, 0.5, -0.5, 0, 0])  # 7, 9, 8: mean 8, standard deviation 1


def test_equal_or_lonely_responses_get_no_response_reward():
    outcome = torch.tensor([1.0, 0.0, 1.0, float("nan")])
    values = response_rewards(torch.tensor([4.0, 4.0, 1.0, 2.0]), outcome, 2, coef=1, threshold=0.5, skip_uniform=True)
    assert values.tolist() == [0, 0, 0, 0]


def test_schedules_at_their_ends_and_in_the_middle():
    def at(step, schedule, end_share=0.2):
        return schedule_factor(step, schedule=schedule, first=10, last=20, end_share=end_share)

    assert [at(step, "constant") for step in (9, 10, 20, 21)] == [0, 1, 1, 0]
    assert [at(step, "linear") for step in (9, 10, 15, 20, 30)] == pytest.approx([0, 1, 0.6, 0.2, 0.2])
    assert [at(step, "cosine") for step in (9, 10, 15, 20, 30)] == pytest.approx([0, 1, 0.6, 0.2, 0.2])
    assert at(12, "cosine", 0.0) == pytest.approx(0.904508, abs=1e-6)  # (1 + cos(0.2 pi)) / 2
    assert at(12, "linear", 2.0) == pytest.approx(1.2)
