"""Reward functions in TRL's calling convention, by the name a configuration uses."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading import PoolSettings, shared_pool
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.accuracy import accuracy
from rlfr_vlm.rewards.custom import is_path, load_function, wrap
from rlfr_vlm.rewards.format import FORMATS, format_reward, matches
from rlfr_vlm.rewards.language import language_mix
from rlfr_vlm.rewards.length import length_reward
from rlfr_vlm.rewards.reference_probability import ReferenceProbability
from rlfr_vlm.rewards.repetition import repetition

RewardFunction = Callable[..., Any]


def _accuracy(options: RewardOptions, max_length: int) -> RewardFunction:
    pool = shared_pool(PoolSettings(options.grading_workers, options.grading_time_limit))
    pool.start()
    reward = partial(
        accuracy, no_answer_is_wrong=options.no_answer_is_wrong, tolerance=options.grading_tolerance, pool=pool
    )
    reward.__name__ = "accuracy"  # type: ignore[attr-defined]
    return reward


def _custom_format(options: RewardOptions, max_length: int) -> RewardFunction:
    if not options.format_pattern:
        raise UserError("The reward format_pattern needs the setting format_pattern, a regular expression.")
    return format_reward(matches(options.format_pattern), "format_pattern")


# Each entry makes a reward function from the options and the longest response in tokens.
REWARDS: dict[str, Callable[[RewardOptions, int], RewardFunction]] = {
    "accuracy": _accuracy,
    **{f"format_{name}": lambda _o, _n, name=name: format_reward(FORMATS[name], f"format_{name}") for name in FORMATS},  # type: ignore[misc]
    "format_pattern": _custom_format,
    "repetition": lambda options, max_length: repetition,
    "length": lambda options, max_length: length_reward(max_length, options.overlong_buffer),
    "language_mix": lambda options, max_length: language_mix,
    "reference_probability": lambda options, max_length: ReferenceProbability(options),
}


def build_rewards(names: Sequence[str], options: RewardOptions, max_length: int) -> list[RewardFunction]:
    """Reward functions for the names in a configuration, a user's own among them.

    Raises:
        UserError: no names, an unknown one, or one that cannot be loaded.
    """
    if not names:
        raise UserError(f"rewards is empty; name at least one of {', '.join(REWARDS)}.")
    functions = []
    for name in names:
        if name in REWARDS:
            functions.append(REWARDS[name](options, max_length))
        elif is_path(name):
            functions.append(wrap(load_function(name)))
        else:
            raise UserError(
                f"Unknown reward {name!r}; known are {', '.join(REWARDS)}, or `path/to/module.py:function`."
                f"{nearest(name, REWARDS)}"
            )
    return functions


__all__ = ["REWARDS", "ReferenceProbability", "accuracy", "build_rewards", "wrap"]
