"""How well a score of responses tells wrong from right, over all pairs and over pairs of the same prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from rlfr_vlm.deviation import ResponseDeviation, StackedDeviations
from rlfr_vlm.evaluate import Response
from rlfr_vlm.group_auc import GroupedAuc, Pairs, share_of_wins
from rlfr_vlm.stats import auc, auc_interval

SHOWN_STATISTICS = ("mean", "max")  # over a response's tokens


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


@dataclass(frozen=True)
class Outcomes:
    """Which responses are wrong and which are right, and their pairs within prompts.

    Attributes:
        wrong, right: (N,) bool; an undecided response is in neither.
        within_groups, like_length: pairs of a wrong and a right response to the same prompt; None without prompts.
    """

    wrong: Tensor
    right: Tensor
    within_groups: Pairs | None = None
    like_length: Pairs | None = None

    @classmethod
    def of(cls, responses: Sequence[Response], groups: Sequence[int] | None = None) -> "Outcomes":
        """Outcomes of responses.

        Args:
            groups: number of the prompt of each response; None leaves out the pairs within prompts.
        """
        outcomes = torch.tensor([math.nan if one.score is None else one.score for one in responses])
        wrong, right = outcomes == 0, outcomes == 1
        if groups is None:
            return cls(wrong, right)
        numbers, lengths = torch.tensor(groups), torch.tensor([len(one.ids) for one in responses])
        return cls(wrong, right, Pairs.within(wrong, right, numbers), Pairs.within(wrong, right, numbers, lengths))

    def auc(self, scores: Tensor) -> AucRow:
        """AUC of scores (N,), wrong above right.

        The interval over all pairs is that of Hanley and McNeil at 95 %. AUC and interval are None if no response is
        wrong or none is right.
        """
        value = auc(scores[self.wrong], scores[self.right])
        counts = int(self.wrong.sum()), int(self.right.sum())
        interval = None if value is None else list(auc_interval(value, *counts))
        row: AucRow = {"auc": value, "ci95": interval, "n_wrong": counts[0], "n_right": counts[1]}
        if self.within_groups is not None and self.like_length is not None:
            row["within_groups"] = _as_dict(share_of_wins(self.within_groups.wins(scores)))
            row["like_length"] = _as_dict(share_of_wins(self.like_length.wins(scores)))
        return row


def correctness_auc(
    deviations: Sequence[ResponseDeviation], responses: Sequence[Response], groups: Sequence[int] | None = None
) -> dict[str, AucRow]:
    """AUC of the deviation of a response, wrong above right.

    Args:
        groups: number of the prompt of each response; None leaves out the AUC within groups.

    Returns:
        The row of each of `SHOWN_STATISTICS`.
    """
    outcomes, stacked = Outcomes.of(responses, groups), StackedDeviations.of(deviations)
    return {statistic: outcomes.auc(stacked.statistic(statistic)) for statistic in SHOWN_STATISTICS}


def _as_dict(within: GroupedAuc) -> WithinGroups:
    return {
        "auc": within.value,
        "ci95": [within.low, within.high],
        "groups": within.groups,
        "pairs": within.pairs,
    }
