"""AUC over pairs of the same group: how well a score tells wrong from right responses to the same prompt.

GRPO can only use what separates responses to the same prompt; an AUC over all pairs includes how hard prompts are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LENGTH_TOLERANCE = 0.1  # responses are of like length if the shorter has at least 90 % of the longer one's tokens


@dataclass(frozen=True)
class GroupedAuc:
    """AUC over pairs of the same group.

    Attributes:
        value: None if no group has both classes.
        low, high: 95 % interval over groups.
        groups: groups with both classes.
        pairs: pairs of a positive and a negative of the same group.
    """

    value: float | None
    low: float
    high: float
    groups: int
    pairs: int

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above 0.5."""
        return self.value is not None and self.low > 0.5


@dataclass(frozen=True)
class Pairs:
    """Pairs of a positive and a negative of the same group; (P,) each.

    Attributes:
        positive, negative: indices of the elements.
        group: number of the pair's group, counted from 0 over the groups that have pairs.
    """

    positive: "Tensor"
    negative: "Tensor"
    group: "Tensor"

    @classmethod
    def within(
        cls, positive: "Tensor", negative: "Tensor", groups: "Tensor", lengths: "Tensor | None" = None
    ) -> "Pairs":
        """All pairs of the same group.

        Args:
            positive, negative: (N,) bool, exclusive; elements that are neither are left out.
            groups: (N,) number of the group of each element.
            lengths: (N,), to take only pairs of like length (see `LENGTH_TOLERANCE`).
        """
        import torch

        members: dict[float, tuple[list[int], list[int]]] = {}
        for index, (group, is_positive, is_negative) in enumerate(
            zip(groups.tolist(), positive.tolist(), negative.tolist(), strict=True)
        ):
            if is_positive or is_negative:
                members.setdefault(group, ([], []))[0 if is_positive else 1].append(index)
        found = [
            (high, low, number)
            for number, (highs, lows) in enumerate(members.values())
            for high in highs
            for low in lows
        ]
        first, second, group = torch.tensor(found, dtype=torch.long, device=groups.device).view(-1, 3).unbind(dim=1)
        if lengths is not None:
            long, short = lengths[first].double(), lengths[second].double()
            alike = (long - short).abs() <= LENGTH_TOLERANCE * long.maximum(short)
            first, second, group = first[alike], second[alike], group[alike]
        return cls(first, second, group.unique(return_inverse=True)[1])

    def wins(self, scores: "Tensor") -> list[tuple[float, int]]:
        """Won pairs and number of pairs of each group, by scores (N,); a tie is half a win."""
        import torch

        if not len(self.group):
            return []
        high, low = scores[self.positive], scores[self.negative]
        won = (high > low).double() + 0.5 * (high == low)
        count = torch.bincount(self.group)
        total = torch.zeros(len(count), dtype=torch.float64, device=won.device).scatter_add(0, self.group, won)
        return list(zip(total.tolist(), count.tolist(), strict=True))


def within_group_auc(
    scores: "Tensor", positive: "Tensor", negative: "Tensor", groups: "Tensor", lengths: "Tensor | None" = None
) -> GroupedAuc:
    """Probability that a positive's score exceeds that of a negative of the same group, ties counting half.

    Args:
        scores: (N,).
        positive, negative, groups, lengths: (N,), see `Pairs.within`.

    >>> import torch
    >>> wrong = torch.tensor([True, False, True, False])
    >>> within_group_auc(torch.tensor([2.0, 1.0, 3.0, 4.0]), wrong, ~wrong, torch.tensor([0, 0, 1, 1])).value
    0.5
    """
    return share_of_wins(Pairs.within(positive, negative, groups, lengths).wins(scores))


def share_of_wins(wins: Sequence[tuple[float, int]]) -> GroupedAuc:
    """The AUC of the wins and pairs of groups, and its interval.

    The interval is that of a ratio of two sums over groups (the delta method), with Student's t; a group with many
    pairs counts more.
    """
    count, total = len(wins), sum(pairs for _, pairs in wins)
    if not count:
        return GroupedAuc(None, 0.0, 1.0, 0, 0)
    value = sum(won for won, _ in wins) / total
    if count == 1:
        return GroupedAuc(value, 0.0, 1.0, 1, total)
    from scipy.stats import t as student

    squares = sum((won - value * pairs) ** 2 for won, pairs in wins)
    half = float(student.ppf(0.975, count - 1)) * math.sqrt(squares * count / (count - 1)) / total
    return GroupedAuc(value, max(0.0, value - half), min(1.0, value + half), count, total)
