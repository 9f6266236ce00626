"""Objects that watch one log-prob pass: for the deviations of a rollout, or for latents and entropies of the loss.

The trainer has one slot for such an object. The code that causes a log-prob pass puts the object into the slot, and
the next log-prob pass takes it out. Other passes (the reference policy, RLPR's probabilities) are not watched.

Letters: L hooked layers, B rows, P sequence length, S captured positions, T response tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from rlfr_vlm.models.latents import Latents, capture_for_field
from rlfr_vlm.trainer.records.rollout_log import RolloutLog
from rlfr_vlm.trainer.records.timing import PartTimes
from rlfr_vlm.trainer.signals.entropy import EntropyBonus
from rlfr_vlm.trainer.signals.flow import OnlineFlow
from rlfr_vlm.trainer.signals.flow_noise import RolloutNoise
from rlfr_vlm.trainer.trl_seams import Batch, response_mask

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class LogProbPass(Protocol):
    """Object that the trainer calls around one log-prob pass."""

    def watching(
        self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, num_response: int
    ) -> "AbstractContextManager[None]":
        """Return the context in which the pass runs; input_ids and attention_mask are (B, P), num_response is T."""

    def finished(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Take the result of the pass: log-probs and entropies, (B, T)."""


class UnwatchedPass:
    """Watches nothing."""

    @contextmanager
    def watching(
        self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, num_response: int
    ) -> Iterator[None]:
        """Do nothing."""
        yield

    def finished(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Do nothing."""


@dataclass
class ScorePass:
    """Watches the pass of a rollout: keeps the log-probs, and scores response tokens with the flow field.

    Each chunk of rows is scored as soon as its latents exist, so that only one chunk's latents are in memory.

    Attributes:
        flow: the field; None without flow rewards.
        times: clocks of the trainer.
        noise: of the rollout; None draws it for each token.
        retest_noise: independent noise, to score every token a second time; None does not.
        logps: (B, T) of the policy that sampled, after the pass.
    """

    flow: OnlineFlow | None
    times: PartTimes
    noise: RolloutNoise | None = None
    retest_noise: RolloutNoise | None = None
    logps: Tensor | None = None
    _scores: list[Tensor] = field(default_factory=list)
    _retest_scores: list[Tensor] = field(default_factory=list)
    _masks: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watching(
        self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, num_response: int
    ) -> Iterator[None]:
        """Score while the pass runs."""
        flow = self.flow
        if flow is None:
            yield
            return

        def score(first_row: int, latents: Latents) -> None:
            rows, positions = latents.hidden.shape[1:3]
            valid = attention_mask[first_row : first_row + rows, -positions:]
            with self.times.timed("flow_score"):
                noise = None if self.noise is None else self.noise.of_rows(first_row, rows)
                scores, mask = flow.score(latents, valid, num_response, noise)
                if (retest := self.retest_noise) is not None:
                    noise = retest.of_rows(first_row, rows)
                    self._retest_scores.append(flow.score(latents, valid, num_response, noise, retest.own)[0])
            self._scores.append(scores)
            self._masks.append(mask)

        with capture_for_field(model, flow.spec, input_ids, attention_mask, num_response, consume=score):
            yield

    def finished(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Keep the log-probs."""
        self.logps = logps

    def deviations(self) -> tuple[Tensor, Tensor]:
        """Deviation (L, B, T) in each layer, and the mask (B, T) of tokens that have one."""
        return torch.cat(self._scores, dim=1), torch.cat(self._masks)

    def retest_deviations(self) -> Tensor | None:
        """Deviation (L, B, T) under the independent noise; None if it was not measured."""
        return torch.cat(self._retest_scores, dim=1) if self._retest_scores else None


@dataclass
class LossPass:
    """Watches the pass of the policy loss: captures latents for the field's update, and adds the entropy bonus.

    TRL's loss reads the advantages after this pass (read in 1.16.0, under a contract test), so the bonus is added to
    the batch here.

    Attributes:
        batch: of this update; its advantages may be replaced.
        flow: the field to fit; None without an update.
        rows: (B,) bool, rows whose latents are captured; None captures nothing.
        bonus: the entropy bonus; None without.
        log: takes the entropies of logged rows; None without.
        entropies: (B, T), detached, after the pass.
    """

    batch: Batch
    flow: OnlineFlow | None = None
    rows: Tensor | None = None
    bonus: EntropyBonus | None = None
    log: RolloutLog | None = None
    entropies: Tensor | None = None
    _chunks: list[Latents] = field(default_factory=list)
    _attention_mask: Tensor | None = None

    @contextmanager
    def watching(
        self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, num_response: int
    ) -> Iterator[None]:
        """Capture latents of `rows` while the pass runs."""
        if self.flow is None or self.rows is None or not self.rows.any():
            yield
            return
        self._attention_mask = attention_mask
        consume: Callable[[int, Latents], None] = lambda _, latents: self._chunks.append(latents)  # noqa: E731
        with capture_for_field(
            model, self.flow.spec, input_ids, attention_mask, num_response, rows=self.rows, consume=consume
        ):
            yield

    def finished(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Keep and log the entropies, and add their bonus to the advantages of the batch."""
        if entropies is None:
            return
        self.entropies = entropies.detach()
        if self.log is not None:
            self.log.add_entropies(self.batch["log_row"], self.entropies, response_mask(self.batch))
        if self.bonus is not None:
            own = entropies * response_mask(self.batch)  # results of tools get no bonus
            self.batch["advantages"] = self.bonus(self.batch["advantages"], own)

    def latents(self) -> tuple[Latents, Tensor]:
        """Latents of the captured rows, and the attention mask (rows, S) of their positions."""
        assert self.rows is not None and self._attention_mask is not None
        latents = Latents.cat(self._chunks)
        return latents, self._attention_mask[self.rows, -latents.hidden.shape[2] :]
