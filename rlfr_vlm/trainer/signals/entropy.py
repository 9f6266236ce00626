"""Entropy-advantage shaping (arXiv 2506.14758): tokens of high entropy get a larger advantage, at every update.

Letters: B rows, T response tokens.
"""

from dataclasses import dataclass

from torch import Tensor

from rlfr_vlm.options import TrainOptions
from rlfr_vlm.shaping import entropy_bonus


@dataclass(frozen=True)
class EntropyBonus:
    """Adds min(alpha * entropy, |advantage| / kappa) to the advantage of each token."""

    alpha: float
    kappa: float

    @classmethod
    def from_options(cls, options: TrainOptions) -> "EntropyBonus | None":
        """The bonus of a run; None where its weight is 0."""
        return cls(options.entropy_alpha, options.entropy_kappa) if options.entropy_alpha != 0.0 else None

    def __call__(self, advantages: Tensor, entropies: Tensor) -> Tensor:
        """Shaped advantages (B, T), from advantages (B,) or (B, T) and entropies (B, T) of the current policy."""
        return entropy_bonus(advantages, entropies, alpha=self.alpha, kappa=self.kappa)
