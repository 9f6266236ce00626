"""Reward functions in TRL's calling convention, by the name a configuration uses."""

from collections.abc import Callable
from typing import Any

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.rewards.accuracy import accuracy

REWARDS: dict[str, Callable[..., list[float | None]]] = {"accuracy": accuracy}


def resolve_rewards(names: list[str]) -> list[Any]:
    """Reward functions for the names in a configuration.

    Raises:
        UserError: no names, or an unknown one.
    """
    if not names:
        raise UserError(f"rewards is empty; name at least one of {', '.join(REWARDS)}.")
    for name in names:
        if name not in REWARDS:
            raise UserError(f"Unknown reward {name!r}; known are {', '.join(REWARDS)}.{nearest(name, REWARDS)}")
    return [REWARDS[name] for name in names]
