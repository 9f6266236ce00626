"""How the noise of a deviation is drawn: who shares a draw, how many draws, and whether both signs are used.

RLFR draws once for each token, so that the order of a response's tokens depends on the draw. Tokens that share a draw
are compared under the same noise. Sharing within a group also compares the responses to a prompt under the same noise.

Letters: R draws, L hooked layers, D hidden width.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.flow.path import standard_normal

NoiseSharing = Literal["token", "response", "group", "none"]
NOISE_SHARING: tuple[str, ...] = get_args(NoiseSharing)


@dataclass(frozen=True)
class NoisePlan:
    """How noise is drawn.

    Attributes:
        shared: token: each token has its own draws (RLFR); response: the tokens of a response share them; group: the
            responses to a prompt share them; none: zero noise, so that the deviation is that of the path's mean point.
        draws: R; the deviation is their mean.
        antithetic: use each draw with both signs.
    """

    shared: NoiseSharing = "token"
    draws: int = 1
    antithetic: bool = False

    def __post_init__(self) -> None:
        if self.shared not in NOISE_SHARING:
            known = ", ".join(NOISE_SHARING)
            raise UserError(
                f"flow_noise is {self.shared!r}; choose one of {known}.{nearest(self.shared, NOISE_SHARING)}"
            )
        if self.draws < 1:
            raise UserError(f"flow_noise_draws is {self.draws}; it must be at least 1.")

    def draw(
        self, count: int, num_layers: int, width: int, generator: torch.Generator, device: torch.device
    ) -> Tensor:
        """Draw the noise (R, L, count, D) of `count` responses or groups; not for noise of each token."""
        if self.shared == "none":
            return torch.zeros(1, num_layers, count, width, device=device)
        return standard_normal((self.draws, num_layers, count, width), device, generator)

    @property
    def uses_both_signs(self) -> bool:
        """Whether each draw is used with both signs."""
        return self.antithetic and self.shared != "none"


PAPER_NOISE = NoisePlan()  # one draw for each token
