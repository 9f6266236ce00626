"""Flow metrics by hand."""

import math

import pytest
import torch

from rlfr_vlm.trainer.records.metrics import RowStatistics, flow_metrics, outcome_metrics

NAN = math.nan


def test_row_statistics():
    deviation = torch.tensor([[1.0, 3.0, 99.0], [5.0, 99.0, 99.0], [9.0, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    rewards = torch.tensor([[0.5, -0.25, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert RowStatistics.of(deviation, mask, rewards).values.tolist() == [
        [2.0, 3.0, 2.0, 1.0, 1.0, 0.25],
        [5.0, 5.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]


def test_flow_metrics_by_hand():
    rows = torch.tensor(
        [[2.0, 3.0, 2.0, 1.0, 1.0, 0.25], [5.0, 5.0, 1.0, 0.0, 0.0, 0.0], [4.0, 9.0, 1.0, 0.0, 1.0, -1.0],
         [8.0, 8.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    )  # fmt: skip
    # right: row 0; wrong: rows 1 and 2; undecided: row 3; without tokens: row 4
    metrics = flow_metrics(RowStatistics(rows), torch.tensor([1.0, 0.0, 0.0, NAN, 1.0]), 0.5, 5)
    assert metrics["flow/deviation_correct"] == 2.0
    assert metrics["flow/deviation_wrong"] == 4.5
    assert metrics["flow/share_rewarded"] == pytest.approx(0.2)  # 1 of 5 tokens
    assert metrics["flow/share_penalised"] == pytest.approx(0.4)
    assert metrics["flow/reward_per_token"] == pytest.approx(-0.15)
    assert metrics["flow/reward_per_response"] == pytest.approx(-0.15)
    assert metrics["flow/auc_wrong_above_correct_mean"] == metrics["flow/auc_within_group_mean"] == 1.0


def test_auc_within_groups_compares_responses_to_the_same_prompt():
    """The hard prompt deviates most, and its right response more than its wrong one: over all 0.5, within 0."""
    rows = torch.zeros(6, 6)
    rows[:, 0] = rows[:, 1] = torch.tensor([1.0, 2.0, 8.0, 9.0, 5.0, 6.0])
    rows[:, 2] = 1.0  # tokens
    outcome = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    metrics = flow_metrics(RowStatistics(rows), outcome, 0.5, 2)
    assert metrics["flow/auc_within_group_mean"] == metrics["flow/auc_within_group_max"] == 0.0
    assert metrics["flow/auc_wrong_above_correct_mean"] == 3 / 8  # 8 is above 2, 5 and 6
    assert metrics["flow/groups_with_both"] == 2.0


def test_auc_is_undefined_when_all_responses_are_alike():
    rows = torch.ones(2, 6)
    assert math.isnan(
        flow_metrics(RowStatistics(rows), torch.tensor([1.0, 1.0]), 0.5, 2)["flow/auc_wrong_above_correct_max"]
    )


def test_undecided_is_not_wrong():
    assert outcome_metrics(torch.tensor([1.0, 0.0, NAN, NAN]), 0.5) == {
        "outcome/accuracy": 0.5,
        "outcome/mean": 0.5,
        "outcome/undecided": 0.5,
    }
    assert math.isnan(outcome_metrics(torch.tensor([NAN]), 0.5)["outcome/accuracy"])
