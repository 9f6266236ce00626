"""Divide the time: each part may take its share of what is left, by the estimates of the parts that still wait."""

import math
import time
from collections.abc import Sequence

CLOSING = 5.0  # seconds kept for the last write of the results
LEAST = 30.0  # seconds under which no part is started
SLACK = 1.5  # how many times its share a part may take: parts come in order of value, and estimates are rough


class Budget:
    """Counts the seconds that are left.

    Args:
        minutes: of the whole check.
        started: when it began, in seconds since the epoch; the set-up before this program counts.
    """

    def __init__(self, minutes: float, started: float | None = None) -> None:
        self._started = time.time() if started is None else started
        self._seconds = 60 * minutes

    @property
    def left(self) -> float:
        """Seconds until the results must be complete; not below 0."""
        return max(0.0, self._started + self._seconds - CLOSING - time.time())

    def limit(self, minutes: float, waiting: Sequence[float], slack: float = SLACK) -> float | None:
        """Seconds that the next part may take; None if too few are left to start it.

        Args:
            minutes: estimate of the part.
            waiting: estimates of the parts after it.
        """
        return limit_of(self.left, minutes, waiting, slack)


def limit_of(left: float, minutes: float, waiting: Sequence[float], slack: float = SLACK) -> float | None:
    """Seconds for a part when `left` seconds are left; None if they are too few.

    >>> limit_of(600, 2, [3, 5])  # a fifth, and half as much again
    180.0
    >>> limit_of(600, 2, []), limit_of(60, 1, [9]), limit_of(20, 1, [])
    (600, 30.0, None)
    """
    if left < LEAST:
        return None
    return max(LEAST, min(left, slack * left * minutes / math.fsum([minutes, *waiting])))
