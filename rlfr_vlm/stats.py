"""Confidence intervals and the AUC over all pairs; that within groups is in group_auc.py."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Z95 = 1.959963984540054


def wilson_interval(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) if n is 0. An effective n need not be whole.

    >>> [round(x, 4) for x in wilson_interval(5, 10)]
    [0.2366, 0.7634]
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def auc(positive: "Tensor", negative: "Tensor") -> float | None:
    """Probability that a random positive score exceeds a random negative one, ties counting half.

    Returns None if either class is empty.

    >>> import torch
    >>> auc(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 1.0]))
    0.625
    """
    import torch

    if not len(positive) or not len(negative):
        return None
    order = negative.double().sort().values
    below = torch.searchsorted(order, positive.double())
    not_above = torch.searchsorted(order, positive.double(), right=True)
    return ((below + not_above).double().mean() / 2 / len(negative)).item()


def auc_interval(value: float, num_positive: int, num_negative: int, z: float = Z95) -> tuple[float, float]:
    """Confidence interval of an AUC (Hanley and McNeil 1982), clipped to [0, 1]."""
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    variance = (value * (1 - value) + (num_positive - 1) * (q1 - value**2) + (num_negative - 1) * (q2 - value**2)) / (
        num_positive * num_negative
    )
    half = z * math.sqrt(max(variance, 0.0))
    return max(0.0, value - half), min(1.0, value + half)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % Student-t interval of a small sample, such as one paired difference per seed.

    Raises:
        ValueError: there are fewer than two values.
    """
    from scipy.stats import t as student

    n = len(values)
    if n < 2:
        raise ValueError(f"an interval needs at least two values, got {n}")
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(student.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    return mean, mean - half, mean + half
