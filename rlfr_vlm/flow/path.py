"""Flow matching on latents: the path, the loss, and the deviation of a latent from the flow. Pure functions.

Letters: L hooked layers, B samples, T response tokens, D hidden width, R noise repeats, M = number of tokens kept by
the mask. The field is evaluated at those M tokens only, not at prompt, image and padding tokens.
Source: RLFR (arXiv 2510.10201); flow matching (arXiv 2210.02747).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlfr_vlm.flow.field import RIGHT, WRONG
from rlfr_vlm.flow.pairing import FlowInputs

Field = Callable[..., Tensor]
# Tokens, of all layers, that are scored together: enough for an efficient matrix product, few enough for the caches.
SCORE_TOKENS = 256
# Tokens of one backward pass of an online update: the field's graph is in memory together with the policy's.
UPDATE_TOKENS = 1024


def linear_path(x_1: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return x_t = t * x_1 + (1 - t) * noise; t = 1 is data. `t` must broadcast against `x_1`.

    >>> linear_path(torch.tensor(4.0), torch.tensor(2.0), torch.tensor(0.25)).item()
    2.5
    """
    return t * x_1 + (1 - t) * noise


def target_velocity(x_1: Tensor, noise: Tensor) -> Tensor:
    """Return u = x_1 - noise, the constant velocity of the linear path."""
    return x_1 - noise


def deviation_weight(t: float) -> float:
    """Return w(t) = t / (1 - t), the weight of a deviation at time t in [0, 1). Source: RLFR, flow rewards.

    >>> deviation_weight(0.0), deviation_weight(0.5), deviation_weight(0.75)
    (0.0, 1.0, 3.0)
    """
    return t / (1 - t)


def logit_normal(shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Draw t = sigmoid(z) with z ~ N(0, 1): times in [0, 1], most of them near the middle."""
    return torch.sigmoid(standard_normal(shape, device, generator))


def standard_normal(shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """Draw normal noise on the generator's device, so that a CPU generator gives the same noise on any device."""
    source = generator.device if generator is not None else device
    return torch.randn(*shape, device=source, generator=generator, dtype=torch.float32).to(device)


def token_flow_losses(
    field: Field,
    inputs: FlowInputs,
    *,
    noise_repeats: int = 1,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    t: Tensor | None = None,
) -> Tensor:
    """Return the flow-matching loss of each kept token: the mean over D of (v(x_t, t, cond, layer) - u)^2.

    Args:
        field: the velocity network.
        inputs: target and condition latents; both are treated as constants.
        noise_repeats: R, copies of each token with different noise and times.
        generator: source of noise and times, for reproducibility.
        noise: (R, L, M, D), instead of drawing.
        t: (R, L, M) in [0, 1], instead of drawing logit-normal times.

    Returns:
        (R, L, M) float32 losses; the M tokens are in row-major order of `inputs.mask`.
    """
    target, cond, image = inputs.packed()
    shape = (noise_repeats, *target.shape)
    noise = standard_normal(shape, target.device, generator) if noise is None else noise
    t = logit_normal(shape[:-1], target.device, generator) if t is None else t
    x_t = linear_path(target, noise, t.unsqueeze(-1))
    label = {} if inputs.label is None else {"label": inputs.label[inputs.token_rows]}
    velocity = field(x_t, t, cond, inputs.layer_positions.unsqueeze(-1), image, **label)
    return (velocity.float() - target_velocity(target, noise)).square().mean(dim=-1)


def flow_matching_loss(field: Field, inputs: FlowInputs, **draw: object) -> Tensor:
    """Return the loss (L,) of each layer: the mean of `token_flow_losses` over tokens and repeats.

    It is 0 if no token is kept. The training loss is its mean over layers.

    Args:
        draw: keyword arguments of `token_flow_losses`.
    """
    losses = token_flow_losses(field, inputs, **draw)  # type: ignore[arg-type]
    return losses.sum(dim=(0, 2)) / max(losses.shape[0] * losses.shape[2], 1)


def layer_deviations(
    field: Field,
    inputs: FlowInputs,
    timesteps: Sequence[float],
    *,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
    row_noise: Tensor | None = None,
    draws: int = 1,
    antithetic: bool = False,
    contrast: bool = False,
    tokens_at_once: int = SCORE_TOKENS,
) -> Tensor:
    """Return the weighted deviation of each token from the flow, per timestep and layer.

    It is `deviation_weight(t)` * mean over D of (v - u)^2 (RLFR, section on flow rewards), averaged over the noise
    draws. All timesteps use the same noise. For a contrast field it is the deviation from the flow of right responses
    minus that from the flow of wrong ones, under the same noise, and may be negative.

    Args:
        timesteps: rewarding timesteps in [0, 1); RLFR uses 0.8.
        noise: (L, M, D), instead of drawing: one draw per token.
        row_noise: (R, L, B, D), instead of drawing: R draws that the tokens of a response share.
        draws: R, draws for each token; not with `noise` or `row_noise`.
        antithetic: use each draw with both signs, which cancels the odd part of its effect.
        contrast: the field has the classes `WRONG` and `RIGHT`.
        tokens_at_once: tokens of one evaluation of the field, in all layers and draws; bounds the memory.

    Returns:
        (number of timesteps, L, B, T) float32, 0 at tokens outside `inputs.mask`.
    """
    if not timesteps or any(not 0 <= t < 1 for t in timesteps):
        raise ValueError(f"timesteps must lie in [0, 1), got {list(timesteps)}")
    shape = (len(timesteps), inputs.target.shape[0], *inputs.mask.shape)
    deviations = inputs.target.new_zeros(shape, dtype=torch.float32)
    copies = (draws if row_noise is None else len(row_noise)) * (2 if antithetic else 1)
    size = max(1, tokens_at_once // copies)
    for number, chunk in enumerate(inputs.chunks(size)):
        if row_noise is not None:
            drawn = row_noise[:, :, chunk.token_rows]
        elif noise is not None:
            drawn = noise[None, :, number * size :][:, :, :size]
        else:
            tokens = int(chunk.mask.sum())
            full = (draws, shape[1], tokens, inputs.target.shape[-1])
            drawn = standard_normal(full, inputs.target.device, generator)
        drawn = torch.cat([drawn, -drawn]) if antithetic else drawn
        deviations[:, :, chunk.mask] = _chunk_deviations(field, chunk, timesteps, drawn, contrast)
    return deviations


def _chunk_deviations(
    field: Field, inputs: FlowInputs, timesteps: Sequence[float], noise: Tensor, contrast: bool
) -> Tensor:
    """Return the deviations (number of timesteps, L, M) of the M kept tokens, for noise (R, L, M, D)."""
    target, cond, image = inputs.packed()
    velocity_true = target_velocity(target, noise)
    layer = inputs.layer_positions.unsqueeze(-1)
    rows = []
    for step in timesteps:
        t = torch.tensor(step, device=target.device)
        x_t = linear_path(target, noise, t)

        def squared_errors(**label: Tensor) -> Tensor:
            velocity = field(x_t, t, cond, layer, image, **label)  # noqa: B023
            return (velocity.float() - velocity_true).square().mean(dim=-1).mean(dim=0)

        if contrast:
            right, wrong = (torch.tensor(value, device=target.device) for value in (RIGHT, WRONG))
            deviation = squared_errors(label=right) - squared_errors(label=wrong)
        else:
            deviation = squared_errors()
        rows.append(deviation_weight(step) * deviation)
    return torch.stack(rows)


@torch.no_grad()
def velocity_deviation(
    field: Field,
    inputs: FlowInputs,
    timesteps: Sequence[float],
    *,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the score (B, T) of each token: the mean of `layer_deviations` over layers and timesteps."""
    return layer_deviations(field, inputs, timesteps, generator=generator, noise=noise).mean(dim=(0, 1))
