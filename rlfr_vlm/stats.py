"""Confidence intervals, paired differences, AUC over all pairs (within groups: group_auc.py) and pass@k."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

Z95 = 1.959963984540054
LARGEST_EFFECT = 3.0  # answers per problem that count as independent at most; more hide problems that differ


class PairedDifference(TypedDict):
    """Difference of two methods over the seeds that both have.

    Attributes:
        seeds: of the pairs.
        per_seed: difference of each pair.
        mean: their mean.
        ci95: 95 % Student-t interval of the mean; None for one pair.
    """

    seeds: list[int]
    per_seed: list[float]
    mean: float
    ci95: list[float] | None


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


def clustered_error(means: Sequence[float]) -> float | None:
    """Standard error of the mean over problems, samples of one problem being one cluster; None for one problem."""
    count = len(means)
    if count < 2:
        return None
    mean = sum(means) / count
    return math.sqrt(sum((value - mean) ** 2 for value in means) / (count - 1) / count)


def clustered_interval(means: Sequence[float], samples: int) -> tuple[float, float]:
    """95 % interval of the mean over problems: Wilson's, adjusted for clusters where a problem has several samples.

    The adjusted interval is Wilson's with an effective number of answers: m (1 - m) / SE^2 for the mean m and its
    clustered standard error SE, from one to `LARGEST_EFFECT` per problem, times (z / t)^2 for Student's t of the
    problems. `benchmarks/statistics/coverage.py` measures its coverage, and that of a bootstrap, which has no width
    where all answers are wrong or all right.

    Args:
        means: share of right answers of each problem.
        samples: answers per problem.
    """
    count = len(means)
    if samples == 1 or count < 2:
        return wilson_interval(sum(means), count)
    from scipy.stats import t as student

    mean, error = sum(means) / count, clustered_error(means)
    effective = mean * (1 - mean) / error**2 if error else count
    effective = min(max(effective, count), count * min(samples, LARGEST_EFFECT))
    effective *= (Z95 / float(student.ppf(0.975, count - 1))) ** 2
    return wilson_interval(mean * effective, effective)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that k of the samples, drawn without replacement, hold a right one (Chen et al. 2021, eq. 1).

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod((samples - right - i) / (samples - i) for i in range(k))


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


def paired_difference(
    values: Mapping[int, float | None], reference: Mapping[int, float | None]
) -> PairedDifference | None:
    """Mean of `values` minus `reference` over the seeds that have a value in both; None if no seed has.

    Args:
        values: seed -> value, None where there is none.
        reference: the same of the method that is subtracted.
    """
    pairs = {
        seed: value - other
        for seed, value in values.items()
        if value is not None and (other := reference.get(seed)) is not None
    }
    if not pairs:
        return None
    differences = list(pairs.values())
    mean, *interval = mean_interval(differences) if len(pairs) > 1 else (differences[0],)
    return {"seeds": list(pairs), "per_seed": differences, "mean": mean, "ci95": interval or None}
