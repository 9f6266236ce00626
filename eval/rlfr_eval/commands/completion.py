"""`rlfr-eval completion`: print a script that completes commands, flags and values in bash, zsh or fish."""

import argparse
from collections.abc import Mapping, Sequence

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.completion.command import SUMMARY, add_shell, print_script

__all__ = ["SUMMARY", "parser", "run"]


def parser() -> argparse.ArgumentParser:
    return add_shell(eval_parser("completion", SUMMARY), "rlfr-eval")


def run(options: argparse.Namespace) -> int:
    """Print the script. Returns the exit code."""
    from rlfr_eval.cli import COMMANDS

    print_script(options.shell, "rlfr-eval", COMMANDS, known_values())
    return 0


def known_values() -> Mapping[str, Sequence[str]]:
    """Return benchmarks, suites and presets, by name of the option; a command's own take precedence."""
    from rlfr_eval.benchmarks.text import shipped, suites
    from rlfr_eval.benchmarks.text_presets import PRESETS
    from rlfr_eval.benchmarks.vlm import shipped_vlm

    text, multimodal = (*suites(), *shipped()), tuple(shipped_vlm())
    return {
        "suite": text,
        "data": multimodal,
        "benchmark": (*shipped(), *multimodal),
        "prompt": tuple(PRESETS),
        "fetch:names": (*text, *multimodal),
    }
