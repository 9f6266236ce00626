"""Soft overlong punishment of DAPO (arXiv 2503.14476, equation 13)."""

from collections.abc import Callable, Sequence

from rlfr_vlm.rewards.completion import Completion


def overlong_penalty(length: int, limit: int, buffer: int) -> float:
    """Return 0 up to `limit - buffer` tokens, then linearly down to -1 at `limit`, and -1 beyond.

    >>> [overlong_penalty(length, limit=100, buffer=20) for length in (80, 90, 100, 130)]
    [0.0, -0.5, -1.0, -1.0]
    """
    excess = length - (limit - buffer)
    if excess <= 0:
        return 0.0
    return -min(1.0, excess / buffer) if buffer else -1.0


def length_reward(limit: int, buffer: int) -> Callable[..., list[float | None]]:
    """Return a reward function that applies `overlong_penalty` to the number of response tokens."""

    def overlong(
        completions: Sequence[Completion], completion_ids: Sequence[Sequence[int]], **kwargs: object
    ) -> list[float | None]:
        return [overlong_penalty(len(ids), limit, buffer) for ids in completion_ids]

    return overlong
