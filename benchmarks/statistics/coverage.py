"""Coverage of the intervals of `rlfr-eval` for several samples per problem and for differences, by simulation.

The share of right answers of a problem is drawn from a beta distribution with a given mean and correlation of a
problem's samples: 0 is one share for all problems, 1 problems that are always right or always wrong. Prints, for each
number of problems, the lowest coverage over samples, correlations and means, and the mean width; nominal is 0.95.
Paired differences are drawn with a chance of a gain and of a loss; of several samples, from two binomials with related
chances.

    python benchmarks/statistics/coverage.py [repetitions]
"""

import sys
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from rlfr_eval.score.compare import difference_interval
from rlfr_vlm.stats import clustered_interval

RESAMPLES = 2000
CHANGES = (
    (0.0, 0.0),
    (0.02, 0.0),
    (0.05, 0.05),
    (0.1, 0.0),
    (0.3, 0.1),
    (0.5, 0.5),
    (0.7, 0.1),
    (0.05, 0.9),
)  # gain, loss
PROBLEMS, SAMPLES = (3, 5, 10, 30), (2, 8, 32)
CORRELATIONS, MEANS = (0.0, 0.1, 0.3, 0.7, 1.0), (0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95)


def shares(random: np.random.Generator, mean: float, correlation: float, problems: int, samples: int) -> np.ndarray:
    """Draw the shares of right answers of each problem, shape (problems,)."""
    if correlation == 0.0:
        chances = np.full(problems, mean)
    elif correlation == 1.0:
        chances = (random.random(problems) < mean).astype(float)
    else:
        size = 1 / correlation - 1
        chances = random.beta(mean * size, (1 - mean) * size, problems)
    return random.binomial(samples, chances) / samples


def coverages(problems: int, repetitions: int, bootstrap: bool) -> Iterator[tuple[float, float, tuple[float, ...]]]:
    """Yield coverage, mean width and setting for each setting."""
    random = np.random.default_rng(0)
    for samples, correlation, mean in product(SAMPLES, CORRELATIONS, MEANS):
        held, width = 0, 0.0
        for _ in range(repetitions):
            means = shares(random, mean, correlation, problems, samples).tolist()
            low, high = bootstrap_interval(means) if bootstrap else clustered_interval(means, samples)
            held += low - 1e-12 <= mean <= high + 1e-12
            width += (high - low) / repetitions
        yield held / repetitions, width, (samples, correlation, mean)


def bootstrap_interval(values: list[float]) -> tuple[float, float]:
    """95 % percentile interval of the mean, problems drawn with replacement."""
    random, data = np.random.default_rng(0), np.asarray(values)
    means = np.sort(data[random.integers(0, len(data), (RESAMPLES, len(data)))].mean(axis=1))
    return float(means[int(0.025 * RESAMPLES)]), float(means[int(0.975 * RESAMPLES) - 1])


def changes(random: np.random.Generator, gain: float, loss: float, problems: int, samples: int) -> np.ndarray:
    """Draw paired differences whose mean is half of gain - loss; with one sample, gain - loss. Shape (problems,)."""
    if samples == 1:
        draws = random.random(problems)
        return np.where(draws < gain, 1.0, np.where(draws < gain + loss, -1.0, 0.0))
    before = random.beta(0.5, 0.5, problems)
    after = before * (1 - loss) + (1 - before) * gain
    return (random.binomial(samples, after) - random.binomial(samples, before)) / samples


def change_coverages(
    problems: int, repetitions: int, bootstrap: bool
) -> Iterator[tuple[float, float, tuple[float, ...]]]:
    """Yield coverage, mean width and setting for each setting of paired differences."""
    random = np.random.default_rng(0)
    for samples, (gain, loss) in product((1, 4, 16), CHANGES):
        truth = (gain - loss) * (1.0 if samples == 1 else 0.5)
        held, width = 0, 0.0
        for _ in range(repetitions):
            values = changes(random, gain, loss, problems, samples).tolist()
            low, high = bootstrap_interval(values) if bootstrap else difference_interval(values)
            held += low - 1e-12 <= truth <= high + 1e-12
            width += (high - low) / repetitions
        yield held / repetitions, width, (samples, gain, loss)


Coverages = Callable[[int, int, bool], Iterator[tuple[float, float, tuple[float, ...]]]]


def print_coverage(what: str, names: str, measure: Coverages, repetitions: int) -> None:
    """Print the lowest coverage for each number of problems, and that of a bootstrap with ten.

    Args:
        what: the things that are counted.
        names: of the parts of a setting.
    """
    for problems in PROBLEMS:
        results = list(measure(problems, repetitions, False))
        lowest, _, setting = min(results)
        width = sum(result[1] for result in results) / len(results)
        print(
            f"{problems:>4} {what}: lowest coverage {lowest:.3f} ({names}: {', '.join(map(str, setting))}), below "
            f"0.93 in {sum(result[0] < 0.93 for result in results)} of {len(results)}, width {width:.3f}"
        )
    few = min(repetitions, 100)
    print(f"  10 {what}, bootstrap: lowest coverage {min(measure(10, few, True))[0]:.2f} ({few} repetitions)")


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"{repetitions} repetitions of each setting, seed 0")
    print_coverage("problems", "samples, correlation, mean", coverages, repetitions)
    print_coverage("pairs", "samples, gain, loss", change_coverages, repetitions)


if __name__ == "__main__":
    main()
