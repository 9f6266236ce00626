"""The gate opens and closes by the interval of the AUC over its window, and continues from a checkpoint."""

import json

import pytest
import torch

from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.trainer.signals.flow_gate import FlowGate
from rlfr_vlm.trainer.signals.flow_reward import FlowReward

GOOD, BAD = [(4.0, 4), (3.0, 4), (4.0, 4)], [(0.0, 4), (1.0, 4), (0.0, 4)]


def test_opens_on_evidence_and_closes_when_it_leaves_the_window():
    gate = FlowGate(window=2)
    assert not gate.open
    assert gate.record(GOOD).value == pytest.approx(11 / 12) and gate.open
    gate.record(BAD)  # 12 of 24
    assert not gate.open
    assert gate.record(BAD).value == pytest.approx(2 / 24) and not gate.open  # the good rollout has left
    gate.record([])
    assert not gate.record([]).groups and not gate.open  # a window without pairs is no evidence


def test_too_few_groups_do_not_open():
    assert FlowGate(window=5).record([(3.0, 3)]).value == 1.0
    gate = FlowGate(window=5)
    gate.record([(3.0, 3)])
    assert not gate.open  # one group has no interval


def test_state_goes_through_json():
    gate = FlowGate(window=3)
    gate.record(GOOD)
    again = FlowGate(window=3)
    again.load_state_dict(json.loads(json.dumps(gate.state_dict())))
    assert again == gate and again.record(BAD) == gate.record(BAD)


def reward_of(**options) -> FlowReward:
    return FlowReward(FlowOptions(**options), 2, tokenizer=None)


def test_the_gate_acts_from_the_next_rollout_on():
    reward = reward_of(flow_gate="auto")
    assert reward.share(0, 10) == 0
    statistic = torch.tensor([2.0, 1.0] * 3 + [0.5, 1.0])  # wrong, right: three won groups, one lost
    outcome = torch.tensor([0.0, 1.0] * 3 + [1.0, 0.0])
    metrics = reward.measure(statistic, outcome)
    assert metrics["flow/gate"] == 0 and metrics["flow/gate_auc"] == 1.0  # the last group's wrong one is above too
    assert reward.share(1, 10) == 1.0
    assert reward.measure(statistic, 1 - outcome)["flow/gate"] == 1
    assert reward.share(2, 10) == 0


def test_without_a_gate_the_schedule_decides():
    reward = reward_of(flow_schedule="linear", flow_to_step=4)
    assert [reward.share(step, 10) for step in (0, 2, 4)] == [1.0, 0.5, 0.0]
    assert reward.measure(torch.zeros(2), torch.zeros(2)) == {}
