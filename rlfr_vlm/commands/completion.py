"""`rlfr completion`: print a script that completes commands, flags and values in bash, zsh or fish."""

import argparse
from collections.abc import Mapping, Sequence

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.completion.command import SUMMARY, add_shell, print_script

__all__ = ["SUMMARY", "parser", "run"]


def parser() -> argparse.ArgumentParser:
    return add_shell(options_parser("completion", SUMMARY), "rlfr")


def run(options: argparse.Namespace) -> int:
    """Print the script. Returns the exit code."""
    from rlfr_vlm.cli import COMMANDS

    print_script(options.shell, "rlfr", COMMANDS, known_values())
    return 0


def known_values() -> Mapping[str, Sequence[str]]:
    """Return values of settings that the dataclasses declare as text, by name; a command's own take precedence."""
    from rlfr_vlm.commands.get_policy import POLICIES
    from rlfr_vlm.data.rows import CONVERTERS
    from rlfr_vlm.export import DTYPES
    from rlfr_vlm.flow.noise import NOISE_SHARING
    from rlfr_vlm.flow.pairing import CONTEXT_MODES
    from rlfr_vlm.flow.spec import LATENT_FORMS, REFERENCES
    from rlfr_vlm.flow.statistics import STATISTICS
    from rlfr_vlm.flow_options import ACCEPT_METRICS, FIT_ACCEPTS, FLOW_GATES, FLOW_LEVELS, FLOW_SCHEDULES
    from rlfr_vlm.options import EMBEDDED_TASKS, GROUP_FILTERS, LONG_PROMPT_RULES, METHODS, ROLLOUTS
    from rlfr_vlm.plan import SHARDING
    from rlfr_vlm.rewards import REWARDS
    from rlfr_vlm.rewards.reference_probability import TEMPLATES
    from rlfr_vlm.trainer.rlfr_config import LOSS_TYPES, PLACES, SCALES, SHARING

    return {
        "method": METHODS,
        "methods": METHODS,
        "dataset_name": EMBEDDED_TASKS,
        "eval_dataset_name": EMBEDDED_TASKS,
        "data": EMBEDDED_TASKS,
        "dataset_format": ("auto", *CONVERTERS),
        "long_prompts": LONG_PROMPT_RULES,
        "group_filter": GROUP_FILTERS,
        "share_prefix": SHARING,
        "image_feature_cache_on": PLACES,
        "rollout": ROLLOUTS,
        "rewards": tuple(REWARDS),
        "rlpr_mode": tuple(TEMPLATES),
        "loss_type": LOSS_TYPES,
        "scale_rewards": SCALES,
        "sharding": SHARDING,
        "dtype": DTYPES,
        "reward_model_dtype": DTYPES,
        "attn_implementation": ("sdpa", "flash_attention_2", "eager"),
        "flow_accept": ACCEPT_METRICS,
        "fit-flow:flow_accept": FIT_ACCEPTS,
        "flow_context_mode": CONTEXT_MODES,
        "flow_gate": FLOW_GATES,
        "flow_latents": LATENT_FORMS,
        "flow_level": FLOW_LEVELS,
        "flow_noise": NOISE_SHARING,
        "flow_reference": REFERENCES,
        "flow_schedule": FLOW_SCHEDULES,
        "flow_statistic": STATISTICS,
        "inspect:format": ("html", "json", "png"),
        "sample:engine": ("hf", "vllm"),
        "resume": ("auto",),
        "get-policy:policy": POLICIES,
    }
