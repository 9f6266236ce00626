"""What the trainer wants from its next log-prob pass: deviations of a rollout, or latents to fit the field on.

Letters: L hooked layers, B samples, P sequence length, S captured positions, T response tokens.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlfr_vlm.models.latents import Latents
from rlfr_vlm.trainer.records.timing import PartTimes
from rlfr_vlm.trainer.signals.flow import OnlineFlow


@dataclass
class ScoreCapture:
    """Scores each chunk of rows as soon as its latents exist, so that no more than one chunk's are held."""

    flow: OnlineFlow
    times: PartTimes
    rows: Tensor | None = None
    scores: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)

    def begin(self, attention_mask: Tensor, num_response: int) -> None:
        """Told once per pass: the batch's attention mask (B, P) and T."""
        self.attention_mask, self.num_response = attention_mask, num_response

    def __call__(self, first_row: int, latents: Latents) -> None:
        rows, positions = latents.hidden.shape[1:3]
        valid = self.attention_mask[first_row : first_row + rows, -positions:]
        with self.times.timed("flow_score"):
            scores, mask = self.flow.score(latents, valid, self.num_response)
        self.scores.append(scores)
        self.masks.append(mask)

    def result(self) -> tuple[Tensor, Tensor]:
        """Deviation (L, B, T) in each layer, and the mask (B, T) of tokens that have one."""
        return torch.cat(self.scores, dim=1), torch.cat(self.masks)


@dataclass
class UpdateCapture:
    """Keeps the latents of the wanted rows (B,) until the policy's loss has been computed."""

    rows: Tensor
    chunks: list[Latents] = field(default_factory=list)

    def begin(self, attention_mask: Tensor, num_response: int) -> None:
        """Told once per pass: the batch's attention mask (B, P) and T."""
        self.attention_mask = attention_mask

    def __call__(self, first_row: int, latents: Latents) -> None:
        self.chunks.append(latents)

    def result(self) -> tuple[Latents, Tensor]:
        """Latents of the wanted rows, and the attention mask (rows, S) of their positions."""
        latents = Latents.cat(self.chunks)
        return latents, self.attention_mask[self.rows, -latents.hidden.shape[2] :]
