"""Draw prompts by their running success rate: those that are always right or always wrong come less often.

The responses to such a prompt all have the same outcome, and GRPO learns nothing from the group. Filters drop it
after it was generated, as in DAPO (arXiv 2503.14476) and in online difficulty filtering (arXiv 2504.03380), whose
bound on what a step improves is largest for rates in the middle. Here the prompt is drawn less often.

Letters: n prompts.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass
class SuccessRates:
    """Running success rate of each prompt, over its decided responses.

    The counts of a prompt are multiplied by `decay` when new responses to it are recorded, so that the rate follows
    the policy. Undecided responses count neither as right nor as wrong; a group that has no others changes only that
    the prompt was tried.

    Attributes:
        size: n.
        decay: factor on earlier counts, 0 to 1; with 0 the last responses alone count.
        right, decided: (n,) counts.
        tried: (n,) whether there was a response at all.

    >>> rates = SuccessRates(2, decay=0.5)
    >>> rates.record(0, right=2, decided=8)
    >>> rates.record(0, right=6, decided=8)  # (0.5 * 2 + 6) / (0.5 * 8 + 8)
    >>> rates.estimates().round(3).tolist()
    [0.583, nan]
    """

    size: int
    decay: float
    right: Floats = field(init=False)
    decided: Floats = field(init=False)
    tried: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.right, self.decided = np.zeros(self.size), np.zeros(self.size)
        self.tried = np.zeros(self.size, dtype=bool)

    def record(self, prompt: int, right: int, decided: int) -> None:
        """Count new responses to a prompt.

        Args:
            right, decided: number of right responses, and of right and wrong ones.
        """
        self.tried[prompt] = True
        if decided:
            self.right[prompt] = self.decay * self.right[prompt] + right
            self.decided[prompt] = self.decay * self.decided[prompt] + decided

    def estimates(self) -> Floats:
        """(n,) success rates, NaN where nothing was decided."""
        return np.divide(self.right, self.decided, out=np.full(self.size, np.nan), where=self.decided > 0)

    def in_band(self, low: float, high: float) -> NDArray[np.bool_]:
        """(n,) whether the success rate lies between two rates, ends included; false where nothing was decided."""
        estimates = self.estimates()
        return (estimates >= low) & (estimates <= high)

    def weights(self, low: float, high: float, floor: float) -> Floats:
        """(n,) weights of the next draw: 1 for prompts in the band and for those not tried yet, else `floor`.

        A prompt that was tried without a decided response has the floor: it taught nothing, and is tried again.
        """
        return np.where(self.in_band(low, high) | ~self.tried, 1.0, floor)


def draw(weights: Floats, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw without replacement: each next one of those that are left with probability in proportion to its weight.

    The smallest of exponential times with these rates come first (P. S. Efraimidis and P. G. Spirakis, Weighted random
    sampling with a reservoir, Information Processing Letters 97, 2006, pages 181-185).

    Args:
        weights: (n,) above 0.
        count: at most n.

    Returns:
        (count,) numbers that differ, in the order of the draw.
    """
    times = generator.exponential(size=len(weights)) / weights
    return np.argsort(times, kind="stable")[:count]
