"""Soft overlong punishment of DAPO (arXiv 2503.14476, equation 13)."""

from collections.abc import Callable
from typing import Any


def overlong_penalty(length: int, limit: int, buffer: int) -> float:
    """0 up to `limit - buffer` tokens, then linearly down to -1 at `limit`, and -1 beyond.

    >>> [overlong_penalty(length, limit=100, buffer=20) for length in (80, 90, 100, 130)]
    [0.0, -0.5, -1.0, -1.0]
    """
    excess = length - (limit - buffer)
    if excess <= 0:
        return 0.0
    return -min(1.0, excess / buffer) if buffer else -1.0


def length_reward(limit: int, buffer: int) -> Callable[..., list[float | None]]:
    """A reward function of the number of response tokens."""

    def overlong(completions: list[Any], completion_ids: list[list[int]], **kwargs: Any) -> list[float | None]:
        return [overlong_penalty(len(ids), limit, buffer) for ids in completion_ids]

    return overlong
