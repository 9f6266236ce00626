"""Noise of one rollout's deviations: drawn once for the groups of all ranks, or for the rows of a chunk.

Letters: R draws, L hooked layers, B rows of this rank, D hidden width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlfr_vlm.flow import FlowSpec, NoisePlan


@dataclass
class RolloutNoise:
    """Noise for the rows of this rank in one rollout.

    Attributes:
        plan: how noise is drawn.
        spec: of the field.
        own: generator of this rank.
        groups: (B,) number of each row's group among the groups of all ranks.
        table: (R, L, groups of all ranks, D), equal on all ranks; None unless groups share noise.
    """

    plan: NoisePlan
    spec: FlowSpec
    own: torch.Generator
    groups: Tensor
    table: Tensor | None

    @classmethod
    def begin(
        cls,
        plan: NoisePlan,
        spec: FlowSpec,
        own: torch.Generator,
        common: torch.Generator,
        rows: range,
        group_size: int,
        num_rows: int,
    ) -> "RolloutNoise":
        """Draw the noise of a rollout.

        Args:
            own, common: generator of this rank, and one that all ranks advance alike.
            rows: numbers of this rank's rows among those of all ranks.
            group_size: rows of a group; they are adjacent.
            num_rows: of all ranks.
        """
        groups = torch.tensor([row // group_size for row in rows])
        table = None
        if plan.shared == "group":
            count = -(-num_rows // group_size)
            table = plan.draw(count, len(spec.layer_indices), spec.hidden_size, common, own.device)
        return cls(plan, spec, own, groups, table)

    def of_rows(self, first: int, count: int) -> Tensor | None:
        """Noise (R, L, count, D) of a chunk of this rank's rows; None if each token has its own."""
        if self.plan.shared == "token":
            return None
        if self.table is not None:
            return self.table[:, :, self.groups[first : first + count]]
        return self.plan.draw(count, len(self.spec.layer_indices), self.spec.hidden_size, self.own, self.own.device)
