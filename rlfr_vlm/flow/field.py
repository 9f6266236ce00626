"""The velocity network of RLFR: a DiT-style residual MLP with adaLN-zero, applied to each token separately.

One network serves all hooked layers of the policy; it takes the layer as `layer index / number of layers`. Its
weights have the names of the released RLFR files, so such a file loads after its prefix is stripped.

Letters: D hidden width of the policy, N number of residual blocks, F = 256 sinusoidal features, ... any leading axes.
Source: RLFR (arXiv 2510.10201), method section; DiT (arXiv 2212.09748) for adaLN-zero.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FREQUENCY_FEATURES = 256
WRONG, RIGHT = 0, 1  # classes of a contrast field
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
        """Embed `value` (...) as (..., D). A scalar is embedded once, and broadcast by the caller."""
        angles = value.float().unsqueeze(-1) * self.freqs
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x * (1 + scale) + shift."""
    return torch.addcmul(x + shift, x, scale)


class ResidualBlock(nn.Module):
    """Computes x + gate * MLP(modulate(RMSNorm(x), shift, scale)); the condition gives shift, scale and gate."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.in_ln = nn.RMSNorm(hidden_size, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 3 * hidden_size))

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        """Return the block's output (..., D).

        Args:
            x: (..., D).
            activated: (..., D) SiLU of the condition y; the network computes it once for all blocks.
        """
        shift, scale, gate = self.adaLN_modulation[1](activated).chunk(3, dim=-1)
        return torch.addcmul(x, gate, self.mlp(_modulate(self.in_ln(x), shift, scale)))


class FinalLayer(nn.Module):
    """Computes Linear(modulate(RMSNorm(x), shift, scale)). Its weights start at zero: a new field predicts 0."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.norm_final = nn.RMSNorm(hidden_size, eps=eps)
        self.linear = nn.Linear(hidden_size, hidden_size)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, activated: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation[1](activated).chunk(2, dim=-1)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


class VelocityField(nn.Module):
    """Predicts the velocity v(x_t, t, condition, layer) of a token's latent.

    It has (5N+7)D^2 + (6N+522)D parameters in float32.

    Args:
        hidden_size: D, the policy's hidden width.
        depth: N, the number of residual blocks (4 for 1.5B and 3B policies, 6 for 7B and 8B in RLFR).
        eps: RMSNorm epsilon; RLFR takes the policy's `rms_norm_eps`.
        image_context: also condition on the mean latent of the sample's image tokens, through a projection that
            starts at zero, so that a field fitted without it loads and gives the same velocities.
        classes: number of classes of responses to tell apart (contrast fields have 2, see `WRONG` and `RIGHT`),
            through an embedding that starts at zero, for the same reason; 0 has none.
    """

    def __init__(
        self, hidden_size: int, depth: int, eps: float = 1e-6, image_context: bool = False, classes: int = 0
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.input_proj = nn.Linear(hidden_size, hidden_size)
        self.time_embed = ScalarEmbedding(hidden_size)
        self.layer_embed = ScalarEmbedding(hidden_size)
        self.cond_embed = nn.Linear(hidden_size, hidden_size)
        self.image_embed = nn.Linear(hidden_size, hidden_size, bias=False) if image_context else None
        self.class_embed = nn.Embedding(classes, hidden_size) if classes else None
        blocks = [ResidualBlock(hidden_size, eps) for _ in range(depth)]
        self.res_blocks = nn.ModuleList(blocks)
        self.final_layer = FinalLayer(hidden_size, eps)
        self._initialise(blocks)

    def _initialise(self, blocks: Sequence[ResidualBlock]) -> None:
        """Draw Xavier weights, then set to zero the layers that make each block, and the output, start at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        zeroed: list[nn.Module] = [block.adaLN_modulation for block in blocks]
        zeroed += [self.final_layer.adaLN_modulation, self.final_layer.linear]
        if self.image_embed is not None:
            zeroed.append(self.image_embed)
        if self.class_embed is not None:
            zeroed.append(self.class_embed)
        for module in zeroed:
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: Tensor,
        layer: Tensor,
        image_cond: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Predict the velocity.

        What depends on the condition alone is computed for the shape of the condition. So several noise draws of the
        same tokens, as a leading axis of `x_t` that `cond` has not, cost less than as many calls.

        Args:
            x_t: (..., D) noised latents.
            t: time in [0, 1], 1 is data; any shape that broadcasts against (...). A scalar is embedded once.
            cond: (..., D) condition latents.
            layer: layer index / number of layers; any shape that broadcasts against (...).
            image_cond: (..., D) or broadcastable, only with `image_context`.
            label: class of the response, any shape that broadcasts against (...), only with `classes`.

        Returns:
            (..., D) velocities, in the dtype of the forward pass.
        """
        y = self.layer_embed(layer) + self.cond_embed(cond) + self.time_embed(t)
        if self.image_embed is not None and image_cond is not None:
            y = y + self.image_embed(image_cond)
        if self.class_embed is not None and label is not None:
            y = y + self.class_embed(label)
        x, activated = self.input_proj(x_t), nn.functional.silu(y)
        for block in self.res_blocks:
            x = block(x, activated)
        return self.final_layer(x, activated)
