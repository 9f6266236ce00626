"""Paired differences between two runs: the same problems, answered by both."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RESAMPLES, SEED = 10_000, 0  # sign changes that are drawn where all are too many
MOST_ENUMERATED = 16  # differences whose sign changes are all enumerated
TOLERANCE = 1e-12  # of sums that are equal but for rounding
Means = Mapping[str, float | None]


@dataclass(frozen=True)
class Difference:
    """One benchmark, B minus A.

    Attributes:
        pairs: problems that both runs decided.
        left_out: problems that only one of them has, or decided.
        value, low, high: mean difference and its 95 % interval; shares.
        p: of no difference: exact McNemar for one sample each, sign flips of the paired differences otherwise.
        won, lost: problems that B has right more often, and less often, than A.
    """

    name: str
    pairs: int
    left_out: int
    value: float
    low: float
    high: float
    p: float
    test: str
    won: tuple[str, ...]
    lost: tuple[str, ...]


def compare(name: str, a: Means, b: Means, single: bool) -> Difference | None:
    """Compare per-problem means; None when no problem was decided by both.

    Args:
        single: both have one sample per problem.
    """
    both = sorted(key for key in a if a[key] is not None and b.get(key) is not None)
    if not both:
        return None
    differences = {key: b[key] - a[key] for key in both}  # type: ignore[operator]
    values = list(differences.values())
    won = tuple(key for key, value in differences.items() if value > 0)
    lost = tuple(key for key, value in differences.items() if value < 0)
    low, high = difference_interval(values)
    p = mcnemar(len(won), len(lost)) if single else sign_flip_p(values)
    left_out = len(set(a) | set(b)) - len(both)
    test = "exact McNemar" if single else "sign-flip"
    return Difference(name, len(both), left_out, sum(values) / len(values), low, high, p, test, won, lost)


def difference_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of paired differences from -1 to 1, which has a width even where no pair differs.

    The adjusted Wald interval (Bonett and Price 2012), with one more pair for either side, and Student's t of the
    pairs. `benchmarks/statistics/coverage.py` measures its coverage, and a bootstrap's.

    >>> [round(bound, 3) for bound in difference_interval([0.0] * 10)]
    [-0.267, 0.267]
    """
    from scipy.stats import t as student

    count = len(values)
    if count < 2:
        return -1.0, 1.0
    mean = sum(values) / (count + 2)
    variance = (sum(value * value for value in values) + 2) / (count + 2) - mean**2
    half = float(student.ppf(0.975, count - 1)) * math.sqrt(variance / (count + 2))
    return max(-1.0, mean - half), min(1.0, mean + half)


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: discordant pairs fall to either side with chance one half.

    >>> mcnemar(5, 0)
    0.0625
    """
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def sign_flip_p(values: Sequence[float]) -> float:
    """Two-sided p-value that the mean is 0: the share of sign changes of the differences that are as far from 0.

    All sign changes are enumerated for up to `MOST_ENUMERATED` differences that are not 0; of more, a seeded sample is
    drawn, which counts the observed signs as one of them.

    >>> sign_flip_p([0.5, 0.25]), sign_flip_p([1.0, 1.0, 1.0, 1.0, 1.0]), sign_flip_p([0.0, 0.0])
    (0.5, 0.0625, 1.0)
    """
    import numpy as np

    nonzero = np.array([value for value in values if value])
    if not len(nonzero):
        return 1.0
    observed = abs(nonzero.sum()) - TOLERANCE
    if len(nonzero) <= MOST_ENUMERATED:
        sums = np.zeros(1)
        for value in nonzero:
            sums = np.concatenate([sums + value, sums - value])
        return float((abs(sums) >= observed).mean())
    random = np.random.default_rng(SEED)
    sums = np.array([random.choice((-1.0, 1.0), len(nonzero)) @ nonzero for _ in range(RESAMPLES)])
    return float((1 + (abs(sums) >= observed).sum()) / (1 + RESAMPLES))


def smallest_p(differing: int) -> float:
    """Return the smallest p-value that so many problems whose verdicts differ can give, in either test.

    >>> smallest_p(0), smallest_p(2), smallest_p(5)
    (1.0, 0.5, 0.0625)
    """
    return min(1.0, 2.0 ** (1 - differing))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
