"""Pair each response token's latent with the latent that conditions it (RLFR's "context mode").

token_pre: target h_k, condition h_(k+shift); the paper's mode and the default.
token_post: target h_k, condition h_(k-shift); the first response token is paired with the last prompt token.
identity: target and condition are both h_k.

Letters: L hooked layers, B samples, T response tokens, S = T + lead captured positions, D hidden width, M kept tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

ContextMode = Literal["token_pre", "token_post", "identity"]
CONTEXT_MODES: tuple[str, ...] = get_args(ContextMode)


@dataclass
class FlowInputs:
    """Inputs of the field for a batch of responses.

    Attributes:
        target: (L, B, T, D) latents of the response tokens, detached.
        cond: (L, B, T, D) latents that condition them.
        mask: (B, T) bool, True at response tokens (no padding) that have a conditioning token.
        layer_positions: (L,) layer index / number of layers.
        image: (L, B, D) mean latent over the sample's image tokens, or None.
        label: (B,) class of each response, for a contrast field; None without.
    """

    target: Tensor
    cond: Tensor
    mask: Tensor
    layer_positions: Tensor
    image: Tensor | None = None
    label: Tensor | None = None

    @property
    def token_rows(self) -> Tensor:
        """(M,) row of each token of the mask."""
        return self.mask.nonzero()[:, 0]

    def chunks(self, size: int) -> Iterator["FlowInputs"]:
        """Yield the same inputs with masks of at most `size` tokens, in row-major order. Latents are not copied."""
        positions = self.mask.flatten().nonzero().flatten()
        for chunk in positions.split(size) if len(positions) else ():
            mask = torch.zeros_like(self.mask).flatten()
            mask[chunk] = True
            yield replace(self, mask=mask.view_as(self.mask))

    def packed(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return target (L, M, D), condition (L, M, D) and image (L, M, D) or None of the tokens of the mask.

        They are float32 and detached.
        """
        image = None
        if self.image is not None:
            image = self.image[:, self.token_rows].detach().float()
        return self.target[:, self.mask].detach().float(), self.cond[:, self.mask].detach().float(), image


def context_lead(mode: ContextMode, shift: int) -> int:
    """Return the number of positions before the first response token that must be captured."""
    return shift if mode == "token_post" else 0


def pair_tokens(
    hidden: Tensor, valid: Tensor, num_response: int, mode: ContextMode, shift: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Split captured latents into targets and conditions.

    Args:
        hidden: (L, B, S, D) latents of the last S positions; the last `num_response` are the response.
        valid: (B, S) bool, False at padding.
        num_response: T.
        mode: how tokens are paired.
        shift: distance to the conditioning token, at least 1 (ignored by identity).

    Returns:
        target (L, B, T, D), condition (L, B, T, D), mask (B, T): True where neither token is padding.
    """
    lead = context_lead(mode, shift)
    missing = num_response + lead - hidden.shape[2]
    if missing > 0:  # the prompt is shorter than the shift, so the first tokens have no conditioning token
        hidden, valid = F.pad(hidden, (0, 0, missing, 0)), F.pad(valid, (missing, 0))
    target, target_valid = hidden[:, :, lead:], valid[:, lead:]
    if mode == "identity":
        return target, target, target_valid
    if mode == "token_post":
        return target, hidden[:, :, :num_response], target_valid & valid[:, :num_response]
    cond = F.pad(target[:, :, shift:], (0, 0, 0, min(shift, num_response)))
    cond_valid = F.pad(target_valid[:, shift:], (0, min(shift, num_response)))
    return target, cond, target_valid & cond_valid
