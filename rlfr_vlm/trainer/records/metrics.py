"""Metrics of one rollout: flow deviations and rewards, outcomes. Inputs are already gathered over ranks.

Letters: B responses of all ranks, T response tokens.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rlfr_vlm.flow import response_statistic
from rlfr_vlm.group_auc import within_group_auc
from rlfr_vlm.stats import auc


@dataclass
class RowStatistics:
    """Per-response statistics (B, 6), one tensor so that a single gather suffices.

    Columns: mean deviation, maximum deviation, number of tokens with a deviation, of rewarded tokens, of penalised
    tokens, sum of flow rewards.
    """

    values: Tensor

    @staticmethod
    def of(deviation: Tensor, mask: Tensor, rewards: Tensor) -> "RowStatistics":
        """Compute the statistics from deviations, their mask and flow rewards, each (B, T)."""
        count = mask.sum(dim=1)
        mean = (deviation * mask).sum(dim=1) / count.clamp(min=1)
        largest = response_statistic(deviation, mask, "max")
        columns = [mean, largest, count, (rewards > 0).sum(dim=1), (rewards < 0).sum(dim=1), rewards.sum(dim=1)]
        return RowStatistics(torch.stack([column.float() for column in columns], dim=1))


def flow_metrics(rows: RowStatistics, outcome: Tensor, threshold: float, group_size: int) -> dict[str, float]:
    """Compute the flow metrics of one rollout.

    `flow/auc_within_group_*` compares responses to the same prompt, which is what GRPO can use;
    `flow/auc_wrong_above_correct_*` compares all, and so includes how hard prompts are.

    Args:
        rows: statistics of all responses, those of a prompt one after the other.
        outcome: (B,) outcome reward, NaN where undecided.
        threshold: a response is correct if its outcome is above this value.
        group_size: responses to a prompt.

    Returns:
        Metrics with names under `flow/`; NaN where there is nothing to average (TRL's logger skips NaN).
    """
    mean, largest, count, rewarded, penalised, total = rows.values.unbind(dim=1)
    has_tokens = count > 0
    right = has_tokens & (outcome > threshold)
    wrong = has_tokens & (outcome <= threshold)
    tokens = count.sum().clamp(min=1)
    groups = torch.arange(len(count), device=count.device) // group_size
    metrics = {
        "flow/deviation_correct": mean[right].mean().item(),
        "flow/deviation_wrong": mean[wrong].mean().item(),
        "flow/share_rewarded": (rewarded.sum() / tokens).item(),
        "flow/share_penalised": (penalised.sum() / tokens).item(),
        "flow/reward_per_token": (total.sum() / tokens).item(),
        "flow/reward_per_response": total.mean().item(),
    }
    for name, score in (("mean", mean), ("max", largest)):
        value = auc(score[wrong], score[right])
        metrics[f"flow/auc_wrong_above_correct_{name}"] = math.nan if value is None else value
        grouped = within_group_auc(score, wrong, right, groups)
        metrics[f"flow/auc_within_group_{name}"] = math.nan if grouped.value is None else grouped.value
        metrics["flow/groups_with_both"] = float(grouped.groups)
    return metrics


def dependency_metrics(dependency: Tensor, outcome: Tensor, threshold: float, group_size: int) -> dict[str, float]:
    """Metrics of visual dependency.

    Args:
        dependency: (B,) mean over the tokens of each response, those of a prompt one after the other.
        outcome, threshold, group_size: as for `flow_metrics`.
    """
    right, wrong = outcome > threshold, outcome <= threshold
    groups = torch.arange(len(outcome), device=outcome.device) // group_size
    within = within_group_auc(dependency, right, wrong, groups)
    return {
        "visual/dependency": dependency.mean().item(),
        "visual/dependency_correct": dependency[right].mean().item(),
        "visual/dependency_wrong": dependency[wrong].mean().item(),
        "visual/auc_within_group_correct_above_wrong": math.nan if within.value is None else within.value,
    }


def outcome_metrics(outcome: Tensor, threshold: float) -> dict[str, float]:
    """Accuracy and mean of the decided outcomes, and the undecided share. `outcome` is (B,), NaN where undecided."""
    decided = outcome[~outcome.isnan()]
    return {
        "outcome/accuracy": (decided > threshold).float().mean().item(),
        "outcome/mean": decided.mean().item(),
        "outcome/undecided": outcome.isnan().float().mean().item(),
    }
