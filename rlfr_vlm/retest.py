"""Test-retest of the token reward: how much of it is the noise that was drawn.

Letters: B responses, T response tokens.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Retest:
    """Agreement of two measurements of the same tokens under independent noise; NaN where nothing can be compared.

    Attributes:
        sign_agreement: share of rewarded tokens whose reward has the same sign in the other measurement.
        correlation: Pearson correlation of the deviations within a response, averaged over responses.
    """

    sign_agreement: float
    correlation: float


def sign_agreement(first: Tensor, second: Tensor) -> float:
    """Share of rewarded tokens whose reward has the same sign in the other measurement; NaN if none is rewarded.

    A token that is rewarded in one measurement only counts as disagreement.

    Args:
        first, second: (B, T) token rewards, 0 where a token gets none.

    >>> import torch
    >>> sign_agreement(torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[1.0, 1.0, -1.0]]))
    0.4
    """
    rewarded = int((first != 0).sum() + (second != 0).sum())
    agreeing = int((first * second > 0).sum())
    return 2 * agreeing / rewarded if rewarded else float("nan")


def row_correlation(first: Tensor, second: Tensor, mask: Tensor) -> float:
    """Pearson correlation of `first` and `second` (B, T) over the tokens of `mask`, averaged over rows.

    Rows with fewer than three tokens, or with constant values, are left out; NaN if none is left.
    """
    weights = mask.double()
    count = weights.sum(dim=1, keepdim=True)
    a, b = (
        (values.double() - (values.double() * weights).sum(dim=1, keepdim=True) / count.clamp(min=1)) * weights
        for values in (first, second)
    )
    spread = (a.square().sum(dim=1) * b.square().sum(dim=1)).sqrt()
    usable = (count.squeeze(1) > 2) & (spread > 0)
    values = (a * b).sum(dim=1)[usable] / spread[usable]
    return values.mean().item() if len(values) else float("nan")
