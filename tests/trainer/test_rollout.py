"""From rewards to advantages without a trainer: undecided rows, dropped and flat groups, token and flow rewards."""

import pytest
import torch

from rlfr_vlm.shaping import flow_rewards
from rlfr_vlm.trainer.rollout import field_weights, mask_undecided, shape, total_rewards
from rlfr_vlm.trainer.signals.flow_reward import FlowTerms

NAN = torch.nan
OUTCOME = torch.tensor([1.0, 0.0, NAN, 1.0])
ADVANTAGES = torch.tensor([1.0, -1.0, 0.0, 0.5])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
ALL, NONE = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)


def test_an_undecided_outcome_masks_the_whole_row():
    rewards = torch.tensor([[1.0, 0.5], [NAN, 0.5], [0.0, NAN]])
    masked = mask_undecided(rewards)
    assert masked[1].isnan().all()
    assert masked[0].tolist() == [1.0, 0.5] and masked[2, 0] == 0.0
    totals = total_rewards(masked, torch.tensor([1.0, 2.0]))
    assert totals[0] == 2.0 and totals[1].isnan() and totals[2] == 0.0  # a missing second reward counts nothing


def test_without_token_rewards_advantages_stay_per_response():
    shaped = shape(ADVANTAGES, OUTCOME, ALL, NONE, MASK, MASK)
    assert torch.equal(shaped, ADVANTAGES)
    assert torch.equal(shape(ADVANTAGES, OUTCOME, ALL, NONE, MASK, MASK, flow=FlowTerms(None, None)), ADVANTAGES)


def test_flat_groups_lose_the_outcome_and_dropped_groups_everything():
    keep = torch.tensor([True, True, True, False])
    flat = torch.tensor([True, False, False, False])
    tokens = torch.full((4, 3), 0.25)
    shaped = shape(ADVANTAGES, OUTCOME, keep, flat, MASK, MASK, token_rewards=tokens)
    # returns-to-go of 0.25 a token: 0.75, 0.5, 0.25 of three tokens, 0.5, 0.25 of two
    assert shaped[0].tolist() == [0.75, 0.5, 0.25]
    assert shaped[1].tolist() == [-0.5, -0.75, 0.0]
    assert shaped[2].tolist() == [0.0, 0.0, 0.0]  # undecided: no token reward either
    assert shaped[3].tolist() == [0.0, 0.0, 0.0]


def test_flow_rewards_join_the_token_rewards():
    deviation = torch.tensor([[0.0, 1.0, 0.5]] * 4)
    flow = FlowTerms(flow_rewards(deviation, MASK.bool(), coef=0.1, threshold=0.6, top_k=0), None)
    shaped = shape(ADVANTAGES, OUTCOME, ALL, NONE, MASK, MASK, token_rewards=torch.full((4, 3), 0.25), flow=flow)
    # row 0: min-max to -1, 1, 0; the middle one stays under the threshold; low deviation is rewarded
    assert flow.tokens[0].tolist() == pytest.approx([0.1, -0.1, 0.0])
    assert shaped[2].tolist() == [0.0, 0.0, 0.0]  # undecided
    # rewards 0.35, 0.15, 0.25, returns-to-go 0.75, 0.4, 0.25
    assert shaped[0].tolist() == pytest.approx([1.75, 1.4, 1.25])


def test_a_response_reward_joins_the_outcome():
    keep = torch.tensor([True, True, True, False])
    flow = FlowTerms(None, torch.tensor([0.25, -0.25, 0.0, 0.5]))
    assert shape(ADVANTAGES, OUTCOME, keep, NONE, MASK, MASK, flow=flow).tolist() == [1.25, -1.25, 0.0, 0.0]


def test_weights_multiply_the_outcome_and_not_the_token_rewards():
    weights = torch.tensor([[1.0, 0.0, 2.0]] * 4)
    shaped = shape(ADVANTAGES, OUTCOME, ALL, NONE, MASK, MASK, weights=weights)
    assert shaped.tolist() == [[1.0, 0.0, 2.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.0, 1.0]]
    flow = FlowTerms(torch.tensor([[0.5, 0.0, 0.0]] * 4), None)
    with_flow = shape(ADVANTAGES, OUTCOME, ALL, NONE, MASK, MASK, weights=weights, flow=flow)
    assert with_flow[0].tolist() == [1.5, 0.0, 2.0]


@pytest.mark.parametrize(
    ("accept", "soft", "expected"),
    [
        ("correct", 0.0, [1.0, 0.0, 0.0, 1.0]),
        ("correct", 0.5, [1.0, 0.5, 0.0, 1.0]),
        ("entropy", 0.5, [1.0, 1.0, 0.0, 0.0]),  # neither undecided rows nor the dropped group
    ],
)
def test_what_the_field_is_fitted_on(accept, soft, expected):
    keep = torch.tensor([True, True, True, False])
    weights = field_weights(OUTCOME, keep, accept=accept, threshold=0.5, soft_weight=soft)
    assert weights.tolist() == expected


def test_a_contrast_field_learns_from_every_decided_row():
    weights = field_weights(OUTCOME, NONE, accept="correct", threshold=0.5, soft_weight=0.0, contrast=True)
    assert weights.tolist() == [1.0, 1.0, 0.0, 1.0]
