"""One rollout of this rank: its rewards, and how they become advantages.

Undecided responses are masked here and nowhere else: `mask_undecided` (rewards), `shape` (token and flow rewards) and
`field_weights` (what the flow field is fitted on).

Letters: N rows of all ranks, B rows of this rank, F reward functions, T response tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlfr_vlm.data.rows import Row
from rlfr_vlm.rewards.completion import Completion
from rlfr_vlm.shaping import shape_advantages
from rlfr_vlm.trainer.passes import ScorePass
from rlfr_vlm.trainer.signals.flow_reward import FlowTerms


@dataclass
class Rollout:
    """One rollout, from the call of `_generate_and_score_completions` until that returns.

    Attributes:
        score: the log-prob pass of the rollout.
        rank: index of this rank.
        inputs: rows of the data set of this rank, one per response.
        rows: the same rows with the columns that reward functions got.
        responses: responses of this rank, as reward functions got them.
        rewards: (N, F), before undecided rows are masked.
        outcome: (N,) first reward, NaN where undecided.
        totals: (N,) weighted sum of the rewards, NaN where undecided.
        is_refill: whether it replaces dropped groups of another one.
        age: updates of the policy since it was sent to the server.
    """

    score: ScorePass
    rank: int
    inputs: Sequence[Row]
    rows: Sequence[Row] = ()
    responses: Sequence[Completion] = ()
    rewards: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    outcome: Tensor = field(default_factory=lambda: torch.zeros(0))
    totals: Tensor = field(default_factory=lambda: torch.zeros(0))
    is_refill: bool = False
    age: int = 0

    def record(self, rows: Sequence[Row], responses: Sequence[Completion], rewards: Tensor, weights: Tensor) -> None:
        """Store the arguments and the results of the reward functions.

        Args:
            rewards: (N, F), NaN where a function gave None.
            weights: (F,).
        """
        self.rows, self.responses, self.rewards = rows, responses, rewards
        self.outcome = rewards[:, 0]
        self.totals = total_rewards(mask_undecided(rewards), weights)

    def local(self, values: Tensor, num_rows: int) -> Tensor:
        """Return this rank's part (B, ...) of the values (N, ...) of all ranks.

        Args:
            num_rows: B.
        """
        return values[self.rank * num_rows : (self.rank + 1) * num_rows]


def mask_undecided(rewards: Tensor) -> Tensor:
    """Return the rewards (N, F) with NaN in every column of a row whose outcome (first column) is undecided.

    Without this, a format reward alone would rank an undecided response within its group.
    """
    return rewards.masked_fill(rewards[:, :1].isnan(), torch.nan)


def total_rewards(rewards: Tensor, weights: Tensor) -> Tensor:
    """(N,) weighted sum of masked rewards (N, F), NaN where undecided."""
    return (rewards * weights).nansum(dim=1).masked_fill(rewards[:, 0].isnan(), torch.nan)


def shape(
    advantages: Tensor,
    outcome: Tensor,
    keep: Tensor,
    flat: Tensor,
    completion_mask: Tensor,
    response_mask: Tensor,
    *,
    token_rewards: Tensor | None = None,
    flow: FlowTerms | None = None,
    weights: Tensor | None = None,
    gamma: float = 1.0,
) -> Tensor:
    """Advantages (B,) or (B, T) of a rollout, from the outcome advantages of GRPO and the rewards of its tokens.

    Args:
        advantages: (B,) outcome advantages.
        outcome: (B,) outcome rewards, NaN where undecided: such a row gets no token reward of any kind.
        keep: (B,) bool, False for rows of dropped groups: they get no advantage of any kind.
        flat: (B,) bool, True for rows of groups without spread: they get no outcome advantage.
        completion_mask: (B, T), 0 at padding.
        response_mask: (B, T), 0 at padding and at tool output.
        token_rewards: (B, T) of the user's own reward functions.
        flow: flow rewards, of tokens or of responses.
        weights: (B, T) by which the outcome advantage of each token is multiplied (visual dependency).
        gamma: discount of the return-to-go.
    """
    decided = ~outcome.isnan().unsqueeze(1)
    advantages = advantages * ~flat
    if flow is not None and flow.responses is not None:
        advantages = advantages + flow.responses
    rewards = None if token_rewards is None else token_rewards * response_mask * decided
    if flow is not None and flow.tokens is not None:
        rewards = flow.tokens * decided if rewards is None else flow.tokens * decided + rewards
    if weights is not None:
        advantages = advantages.unsqueeze(1) * weights * completion_mask
    if rewards is not None:
        advantages = shape_advantages(advantages, rewards, completion_mask, gamma)
    return advantages * keep.view(-1, *[1] * (advantages.dim() - 1))


def field_weights(
    outcome: Tensor, keep: Tensor, *, accept: str, threshold: float, soft_weight: float, contrast: bool = False
) -> Tensor:
    """(B,) weight of each row in the update of the flow field; 0 for undecided rows.

    Args:
        outcome: (B,) outcome rewards, NaN where undecided.
        keep: (B,) bool, False for rows of dropped groups.
        accept: `correct` gives 1 to rows above the threshold and `soft_weight` to the other decided ones; `entropy`
            gives 1 to decided rows of kept groups, whose tokens are then chosen by their entropy.
        threshold: a row is correct above it.
        soft_weight: weight of decided rows that are not accepted.
        contrast: the field tells right from wrong rows, so that all decided rows teach it.
    """
    decided = ~outcome.isnan()
    if contrast:
        return decided.float()
    if accept == "entropy":
        return (decided & keep).float()
    return torch.where(outcome > threshold, 1.0, torch.where(decided, soft_weight, 0.0))
