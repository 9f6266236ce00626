"""Visual dependency of response tokens, and advantages weighted by it (VPPO, arXiv 2510.09285). Pure functions.

Letters: B responses, N responses of all ranks, T response tokens, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

PIXELS = ("pixel_values", "pixel_values_videos")


def blank_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same inputs of a policy with blank images and videos."""
    return {name: blank_pixels(value) if name in PIXELS else value for name, value in inputs.items()}


def blank_pixels(pixel_values: Tensor) -> Tensor:
    """Return pixel values of blank images, of the processor's mean colour; those of padding images stay 0.

    A blank pixel is the smallest number above 0: Idefics3 and SmolVLM take images of zeros for padding and drop them.

    >>> blank_pixels(torch.tensor([[0.7, -1.0], [0.0, 0.0]])).round(decimals=4).abs().tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    return torch.where(
        pixel_values == 0, pixel_values, torch.full_like(pixel_values, torch.finfo(pixel_values.dtype).tiny)
    )


def token_dependency(logits: Tensor, blank_logits: Tensor) -> Tensor:
    """KL divergence (...) in nats of the distribution with the image from that without it: D(with || without).

    Args:
        logits, blank_logits: (..., V).

    >>> round(token_dependency(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.2, 0.8]).log()).item(), 4)
    0.2231
    """
    logps, blank_logps = logits.float().log_softmax(dim=-1), blank_logits.float().log_softmax(dim=-1)
    return (logps.exp() * (logps - blank_logps)).sum(dim=-1).clamp(min=0)


def pivotal_tokens(dependency: Tensor, mask: Tensor, share: float) -> Tensor:
    """Mask (B, T) of the tokens with the highest dependency of each response: ceil(share * its tokens).

    >>> dependency, mask = torch.tensor([[0.1, 0.9, 0.5, 7.0]]), torch.tensor([[1, 1, 1, 0]])
    >>> pivotal_tokens(dependency, mask, 0.5).tolist()
    [[False, True, True, False]]
    """
    valid = mask.bool()
    count = torch.ceil(share * valid.sum(dim=1, keepdim=True) - 1e-6)
    order = dependency.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter(1, order, torch.arange(mask.shape[1], device=mask.device).expand_as(order))
    return valid & (rank < count)


def dependency_scale(means: Tensor, has_image: Tensor, smallest: float) -> Tensor:
    """Factor (N,) of each response's advantage: from `smallest`, linear in its mean dependency, with mean 1.

    Responses to prompts without images get 1; so do all if their dependencies are equal.

    Args:
        means: (N,) mean dependency of each response.
        has_image: (N,) bool.

    >>> dependency_scale(torch.tensor([0.0, 1.0, 2.0, 0.0]), torch.tensor([True, True, True, False]), 0.5).tolist()
    [0.5, 1.0, 1.5, 1.0]
    """
    ones = torch.ones_like(means)
    values = means[has_image]
    if not len(values) or values.max() <= values.min():
        return ones
    unit = (means - values.min()) / (values.max() - values.min())
    scale = smallest + (1 - smallest) * unit / unit[has_image].mean()
    return torch.where(has_image, scale, ones)
