"""Reward functions in TRL's calling convention, by their name in a configuration."""

from collections.abc import Callable, Sequence
from functools import partial

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading import PoolSettings, shared_pool
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.accuracy import accuracy
from rlfr_vlm.rewards.custom import RewardFunction, is_import_path, load_function, wrap
from rlfr_vlm.rewards.format import FORMATS, format_reward, pattern_format
from rlfr_vlm.rewards.judge import JudgeReward
from rlfr_vlm.rewards.judge_pairs import JudgePairs
from rlfr_vlm.rewards.language import language_mix
from rlfr_vlm.rewards.length import length_reward
from rlfr_vlm.rewards.reasoning_gym import reasoning_gym
from rlfr_vlm.rewards.reference_probability import ReferenceProbability
from rlfr_vlm.rewards.repetition import repetition
from rlfr_vlm.rewards.reward_model import RewardModel
from rlfr_vlm.rewards.served_reward_model import ServedRewardModel, is_address


def _accuracy(options: RewardOptions, max_length: int) -> RewardFunction:
    pool = shared_pool(PoolSettings(options.grading_workers, options.grading_time_limit))
    pool.start()
    reward = partial(
        accuracy, no_answer_is_wrong=options.no_answer_is_wrong, tolerance=options.grading_tolerance, pool=pool
    )
    reward.__name__ = "accuracy"  # type: ignore[attr-defined]
    return reward


def _reasoning_gym(options: RewardOptions, max_length: int) -> RewardFunction:
    from rlfr_vlm.grading.gym.grade import scoring_pool

    pool = scoring_pool(PoolSettings(options.grading_workers, options.grading_time_limit))
    pool.start()
    reward = partial(
        reasoning_gym,
        partial_scores=options.partial_scores,
        no_answer_is_wrong=options.no_answer_is_wrong,
        pool=pool,
    )
    reward.__name__ = "reasoning_gym"  # type: ignore[attr-defined]
    return reward


def _judge(options: RewardOptions, max_length: int) -> RewardFunction:
    pool = shared_pool(PoolSettings(options.grading_workers, options.grading_time_limit))
    pool.start()
    return JudgeReward(options, pool)


def _reward_model(options: RewardOptions, max_length: int) -> RewardFunction:
    return ServedRewardModel(options) if is_address(options.reward_model) else RewardModel(options)


def _format(name: str, options: RewardOptions, max_length: int) -> RewardFunction:
    return format_reward(FORMATS[name], f"format_{name}")


def _custom_format(options: RewardOptions, max_length: int) -> RewardFunction:
    if not options.format_pattern:
        raise UserError("The reward format_pattern needs the setting format_pattern, a regular expression.")
    return format_reward(pattern_format(options.format_pattern), "format_pattern")


# Each entry builds a reward function from the options and the maximum response length in tokens.
REWARDS: dict[str, Callable[[RewardOptions, int], RewardFunction]] = {
    "accuracy": _accuracy,
    "reasoning_gym": _reasoning_gym,
    **{f"format_{name}": partial(_format, name) for name in FORMATS},
    "format_pattern": _custom_format,
    "repetition": lambda options, max_length: repetition,
    "length": lambda options, max_length: length_reward(max_length, options.overlong_buffer),
    "language_mix": lambda options, max_length: language_mix,
    "reference_probability": lambda options, max_length: ReferenceProbability(options),
    "judge": _judge,
    "judge_pairs": lambda options, max_length: JudgePairs(options),
    "reward_model": _reward_model,
}
# Rewards that can do without the column `answer`.
WITHOUT_ANSWER = {"judge", "judge_pairs", "reward_model", "format_pattern", "repetition", "length", "language_mix"} | {
    f"format_{name}" for name in FORMATS
}


def build_rewards(names: Sequence[str], options: RewardOptions, max_length: int) -> list[RewardFunction]:
    """Return the reward functions for the names in a configuration, which may include paths of custom functions.

    Raises:
        UserError: there is no name, a name is unknown, or a custom function cannot be loaded.
    """
    refuse_unknown(names)
    return [REWARDS[name](options, max_length) if name in REWARDS else wrap(load_function(name)) for name in names]


def columns_needed(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that every training row must have for rewards of these names.

    >>> columns_needed(["accuracy"]), columns_needed(["judge", "length"]), columns_needed(["mine.py:reward"])
    (('prompt', 'answer'), ('prompt',), ('prompt', 'answer'))
    """
    return ("prompt",) if all(name in WITHOUT_ANSWER for name in names) else ("prompt", "answer")


def refuse_unknown(names: Sequence[str]) -> None:
    """Refuse names of rewards that there are not, without building one.

    Raises:
        UserError: there is no name, or a name is neither known nor a path of a function.
    """
    if not names:
        raise UserError(f"rewards is empty; name at least one of {', '.join(REWARDS)}.")
    for name in names:
        if name not in REWARDS and not is_import_path(name):
            raise UserError(
                f"Unknown reward {name!r}; choose from {', '.join(REWARDS)}, or write `path/to/module.py:function`."
                f"{nearest(name, REWARDS)}"
            )


__all__ = ["REWARDS", "ReferenceProbability", "RewardFunction", "accuracy", "build_rewards", "wrap"]
