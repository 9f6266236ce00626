"""How well a score of responses tells wrong from right, over all pairs and over pairs of the same prompt."""

import math
from collections.abc import Sequence
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from rlfr_vlm.deviation import ResponseDeviation
from rlfr_vlm.evaluate import Response
from rlfr_vlm.group_auc import GroupedAuc, within_group_auc
from rlfr_vlm.stats import auc, auc_interval


class WithinGroups(TypedDict):
    """AUC over pairs of responses to the same prompt, its 95 % interval, prompts with both kinds, and pairs."""

    auc: float | None
    ci95: list[float]
    groups: int
    pairs: int


class AucRow(TypedDict):
    """Area under the ROC curve, its 95 % interval [low, high], and the numbers of wrong and right responses.

    Attributes:
        auc: over all pairs, which includes how hard prompts are.
        within_groups: only pairs of the same prompt, which are what training can use; absent if the prompts were not
            given.
        like_length: only pairs of the same prompt and of like length; absent without prompts.
    """

    auc: float | None
    ci95: list[float] | None
    n_wrong: int
    n_right: int
    within_groups: NotRequired[WithinGroups]
    like_length: NotRequired[WithinGroups]


def correctness_auc(
    deviations: Sequence[ResponseDeviation], responses: Sequence[Response], groups: Sequence[int] | None = None
) -> dict[str, AucRow]:
    """AUC of the deviation of a response (mean and maximum over its tokens), wrong above right.

    Args:
        groups: number of the prompt of each response; None leaves out the AUC within groups.

    Returns:
        The row of each of `mean` and `max`.
    """
    return {
        statistic: score_auc([getattr(deviation, statistic) for deviation in deviations], responses, groups)
        for statistic in ("mean", "max")
    }


def score_auc(scores: Sequence[float], responses: Sequence[Response], groups: Sequence[int] | None = None) -> AucRow:
    """AUC of one score per response, wrong above right.

    Undecided responses are left out. The interval over all pairs is that of Hanley and McNeil at 95 %. AUC and
    interval are None if no response is wrong or none is right.
    """
    values = torch.tensor(scores, dtype=torch.float64)
    wrong, right = outcome_masks(responses)
    value = auc(values[wrong], values[right])
    counts = int(wrong.sum()), int(right.sum())
    interval = None if value is None else list(auc_interval(value, *counts))
    row: AucRow = {"auc": value, "ci95": interval, "n_wrong": counts[0], "n_right": counts[1]}
    if groups is not None:
        numbers, lengths = torch.tensor(groups), torch.tensor([len(one.ids) for one in responses])
        row["within_groups"] = _as_dict(within_group_auc(values, wrong, right, numbers))
        row["like_length"] = _as_dict(within_group_auc(values, wrong, right, numbers, lengths))
    return row


def outcome_masks(responses: Sequence[Response]) -> tuple[Tensor, Tensor]:
    """(N,) masks of the wrong and of the right responses; an undecided one is in neither."""
    outcomes = torch.tensor([math.nan if one.score is None else one.score for one in responses])
    return outcomes == 0, outcomes == 1


def _as_dict(within: GroupedAuc) -> WithinGroups:
    return {
        "auc": within.value,
        "ci95": [within.low, within.high],
        "groups": within.groups,
        "pairs": within.pairs,
    }
