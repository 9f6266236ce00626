"""The velocity network of RLFR: a DiT-style residual MLP with adaLN-zero, applied to each token on its own.

One network serves all hooked layers of the policy; it is told the layer as `layer index / number of layers`. The
names of its weights are those of the released RLFR files, so such a file loads after its prefix is stripped.

Letters: D hidden width of the policy, N number of residual blocks, F = 256 sinusoidal features, ... any leading axes.
Source: RLFR (arXiv 2510.10201), method section; DiT (arXiv 2212.09748) for adaLN-zero.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

FREQUENCY_FEATURES = 256
MAX_PERIOD = 10000.0


class ScalarEmbedding(nn.Module):
    """Embed a scalar in [0, 1]: sinusoids (cosines, then sines), Linear, SiLU, Linear."""

    freqs: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        half = FREQUENCY_FEATURES // 2
        exponents = -math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32) / half
        self.register_buffer("freqs", torch.exp(exponents), persistent=False)
        self.mlp = nn.Sequential(
            nn.Linear(FREQUENCY_FEATURES, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, value: Tensor) -> Tensor:
        """(...) -> (..., D). The cost is that of `value`'s own shape: pass a scalar to embed it once."""
        angles = value.float().unsqueeze(-1) * self.freqs
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift."""
    return torch.addcmul(x + shift, x, scale)


class ResidualBlock(nn.Module):
    """x + gate * MLP(modulate(RMSNorm(x), shift, scale)), with shift, scale and gate made from the condition."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.in_ln = nn.RMSNorm(hidden_size, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 3 * hidden_size))

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """`activated` is SiLU(y), which the network computes once for all blocks."""
        shift, scale, gate = self.adaLN_modulation[1](activated).chunk(3, dim=-1)
        return torch.addcmul(x, gate, self.mlp(_modulate(self.in_ln(x), shift, scale)))


class FinalLayer(nn.Module):
    """Linear(modulate(RMSNorm(x), shift, scale)); starts at zero, so an untrained field predicts no velocity."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.norm_final = nn.RMSNorm(hidden_size, eps=eps)
        self.linear = nn.Linear(hidden_size, hidden_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation[1](activated).chunk(2, dim=-1)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


class VelocityField(nn.Module):
    """Velocity v(x_t, t, condition, layer) of a token's latent. (5N+7)D^2 + (6N+522)D parameters, float32.

    Args:
        hidden_size: D, the policy's hidden width.
        depth: N, the number of residual blocks (4 for 1.5B and 3B policies, 6 for 7B and 8B in RLFR).
        eps: RMSNorm epsilon; RLFR takes the policy's `rms_norm_eps`.
        image_context: also condition on the mean latent of the sample's image tokens, through a projection that
            starts at zero, so that a field fitted without it loads unchanged and behaves the same.
    """

    def __init__(self, hidden_size: int, depth: int, eps: float = 1e-6, image_context: bool = False) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input_proj = nn.Linear(hidden_size, hidden_size)
        self.time_embed = ScalarEmbedding(hidden_size)
        self.layer_embed = ScalarEmbedding(hidden_size)
        self.cond_embed = nn.Linear(hidden_size, hidden_size)
        self.image_embed = nn.Linear(hidden_size, hidden_size, bias=False) if image_context else None
        self.res_blocks: Any = nn.ModuleList(ResidualBlock(hidden_size, eps) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, eps)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        zeroed: list[Any] = [block.adaLN_modulation[1] for block in self.res_blocks]
        zeroed += [self.final_layer.adaLN_modulation[1], self.final_layer.linear]
        if self.image_embed is not None:
            zeroed.append(self.image_embed)
        for linear in zeroed:
            nn.init.zeros_(linear.weight)

    def forward(self, x_t: Tensor, t: Tensor, cond: Tensor, layer: Tensor, image_cond: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Args:
            x_t: (..., D) noised latents.
            t: time in [0, 1], 1 is data; any shape that broadcasts against (...). A scalar is embedded once.
            cond: (..., D) condition latents.
            layer: layer index / number of layers; any shape that broadcasts against (...).
            image_cond: (..., D) or broadcastable, only with `image_context`.

        Returns:
            (..., D) velocities, in the dtype the network ran in.
        """
        y = self.layer_embed(layer) + self.cond_embed(cond) + self.time_embed(t)
        if self.image_embed is not None and image_cond is not None:
            y = y + self.image_embed(image_cond)
        x, activated = self.input_proj(x_t), nn.functional.silu(y)
        for block in self.res_blocks:
            x = block(x, activated)
        return self.final_layer(x, activated)
