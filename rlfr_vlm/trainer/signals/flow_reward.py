"""Turn the deviations of a rollout into flow rewards: of tokens or of responses, by schedule and gate.

Letters: N responses of all ranks, L hooked layers, B responses of this rank, T response tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlfr_vlm.answer_position import Decoder, token_before_answer
from rlfr_vlm.flow import response_statistic
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.group_auc import Pairs
from rlfr_vlm.retest import row_correlation, sign_agreement
from rlfr_vlm.shaping import flow_rewards, response_rewards, schedule_factor
from rlfr_vlm.trainer.records.metrics import RowStatistics, flow_metrics
from rlfr_vlm.trainer.signals.flow_gate import FlowGate


@dataclass(frozen=True)
class FlowTerms:
    """What the flow adds to the advantages of this rank's responses.

    Attributes:
        tokens: (B, T) token rewards; None where the flow adds none to this rollout.
        responses: (B,) response rewards; None at the level of tokens.
    """

    tokens: Tensor | None
    responses: Tensor | None


@dataclass(frozen=True)
class RolloutReward:
    """Flow rewards of a rollout and what they were made of.

    Attributes:
        deviation: (B, T), mean over the rewarded layers.
        mask: (B, T) bool, tokens of decided responses that have a deviation.
        terms: what enters the advantages.
        token_rewards: (B, T), 0 where the flow adds none to tokens.
        metrics: of all ranks.
    """

    deviation: Tensor
    mask: Tensor
    terms: FlowTerms
    token_rewards: Tensor
    metrics: dict[str, float]


class FlowReward:
    """Flow rewards of a run.

    Args:
        options: flow options of the run.
        group_size: responses to a prompt.
        tokenizer: finds where answers begin, for the statistic before_answer.
    """

    def __init__(self, options: FlowOptions, group_size: int, tokenizer: Decoder) -> None:
        self.options, self.group_size, self.tokenizer = options, group_size, tokenizer
        self.gate = FlowGate(options.flow_gate_window) if options.flow_gate == "auto" else None

    def share(self, step: int, last_step: int) -> float:
        """Share of the coefficient that counts at an update: the schedule's, or 0 while the gate is closed.

        Args:
            step: updates done.
            last_step: updates of the run.
        """
        options = self.options
        if self.gate is not None and not self.gate.open:
            return 0.0
        return schedule_factor(
            step,
            schedule=options.flow_schedule,
            first=options.flow_from_step,
            last=options.flow_to_step or last_step,
            end_share=options.flow_end_share,
        )

    def statistic(self, deviation: Tensor, mask: Tensor, completion_ids: Tensor) -> Tensor:
        """One number (B,) for each response, from deviations and their mask (B, T) and token ids (B, T)."""
        before_answer = None
        if self.options.flow_statistic == "before_answer":
            lengths = (mask.long().cumsum(dim=1).argmax(dim=1) + 1).tolist()
            ids = [row[:length] for row, length in zip(completion_ids.tolist(), lengths, strict=True)]
            positions = [token_before_answer(row, self.tokenizer) for row in ids]
            before_answer = torch.tensor(positions, device=deviation.device)
        return response_statistic(deviation, mask, self.options.flow_statistic, before_answer)

    def measure(self, statistic: Tensor, outcome: Tensor) -> dict[str, float]:
        """Give the gate the statistic and the outcome (N,) of a rollout; returns metrics.

        The gate acts from the next rollout on, so that no response decides about its own reward.
        """
        if self.gate is None:
            return {}
        threshold = self.options.flow_accept_threshold
        groups = torch.arange(len(outcome), device=outcome.device) // self.group_size
        counted = self.gate.open
        wins = Pairs.within(outcome <= threshold, outcome > threshold, groups).wins(statistic)
        measured = self.gate.record(wins)
        return {
            "flow/gate": float(counted),
            "flow/gate_auc": math.nan if measured.value is None else measured.value,
            "flow/gate_low": measured.low,
            "flow/gate_groups": float(measured.groups),
        }

    def of_rollout(
        self,
        deviation: Tensor,
        mask: Tensor,
        completion_ids: Tensor,
        outcome: Tensor,
        outcomes: Tensor,
        *,
        share: float,
        gather: Callable[[Tensor], Tensor],
        local: Callable[[Tensor], Tensor],
    ) -> RolloutReward:
        """Flow rewards of this rank's responses, and the metrics of all ranks.

        Args:
            deviation: (B, T).
            mask: (B, T) bool, tokens that have a deviation.
            completion_ids: (B, T).
            outcome, outcomes: (B,) and (N,) outcome rewards, NaN where undecided.
            share: of the coefficient (see `share`).
            gather: joins the values of all ranks.
            local: takes this rank's part (B,) of values (N,).
        """
        options = self.options
        decided = mask & ~outcome.isnan().unsqueeze(1)
        statistic = gather(self.statistic(deviation, mask, completion_ids))
        terms = self._terms(share, deviation, decided, statistic, outcomes, local)
        rewards = torch.zeros_like(deviation) if terms.tokens is None else terms.tokens
        rows = RowStatistics(gather(RowStatistics.of(deviation, mask, rewards).values))
        metrics = flow_metrics(rows, outcomes, options.flow_accept_threshold, self.group_size)
        metrics |= {"flow/coef_share": share, **self.measure(statistic, outcomes)}
        return RolloutReward(deviation, decided, terms, rewards, metrics)

    def _terms(
        self,
        share: float,
        deviation: Tensor,
        decided: Tensor,
        statistic: Tensor,
        outcomes: Tensor,
        local: Callable[[Tensor], Tensor],
    ) -> FlowTerms:
        options = self.options
        if share == 0.0:
            return FlowTerms(None, None)
        if options.flow_level == "token":
            return FlowTerms(flow_rewards(deviation, decided, **options.shaping(share)), None)
        rewards = response_rewards(
            statistic,
            outcomes,
            self.group_size,
            coef=options.flow_response_coef * share,
            threshold=options.flow_accept_threshold,
            skip_uniform=options.flow_skip_uniform,
        )
        return FlowTerms(None, local(rewards))

    def retest(self, measured: RolloutReward, again: Tensor) -> dict[str, float]:
        """Metrics of a second measurement (B, T) under other noise, of this rank."""
        deviations = (measured.deviation, again)
        first, second = (flow_rewards(values, measured.mask, **self.options.shaping()) for values in deviations)
        return {
            "flow/sign_agreement": sign_agreement(first, second),
            "flow/retest_correlation": row_correlation(*deviations, measured.mask),
        }
