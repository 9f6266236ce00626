"""Options that several commands have, and what they become."""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_eval.judge.choice import JudgeChoice, choose_judge
from rlfr_eval.settings import Settings, load_settings
from rlfr_vlm.command_line import options_parser

if TYPE_CHECKING:
    from rlfr_eval.judge.session import JudgeOptions

EXIT_INCOMPLETE = 3


def parser(command: str, summary: str) -> argparse.ArgumentParser:
    """A parser of `rlfr-eval`."""
    return options_parser(command, summary, "rlfr-eval")


def add_judge_options(given: argparse.ArgumentParser) -> None:
    group = given.add_argument_group("judge (keys come from JUDGE_API_KEY or .env, never from the command line)")
    group.add_argument("--judge", choices=["none"], help="none: rules alone, whatever the settings say")
    group.add_argument("--judge-base-url", help="its server, instead of the one in the settings")
    group.add_argument("--judge-model", help="the model to ask there")
    group.add_argument("--judge-local", metavar="PATH_OR_ID", help="a judge to serve here for this run")
    group.add_argument("--judge-force", action="store_true", help="use a judge that fails the check")
    group.add_argument("--judge-budget-tokens", type=float, default=math.inf, help="stop judging at so many tokens")
    group.add_argument("--judge-budget-usd", type=float, default=math.inf, help="stop judging at so many dollars")
    group.add_argument("--no-judge-cache", action="store_true", help="ask anew, and keep nothing for other runs")


def add_output_options(given: argparse.ArgumentParser) -> None:
    given.add_argument("--json", action="store_true", help="print scores.json instead of a table")
    given.add_argument("--show-undecided", action="store_true", help="print numbers above 1 %% undecided all the same")


def deliver(options: argparse.Namespace, folder: Path, run: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """Write report.md into the run folder and print the scores, as the options say."""
    from rlfr_eval.report import write_report
    from rlfr_eval.table import summary

    report = write_report(folder, run, scores)
    if options.json:
        print(json.dumps(scores))
    else:
        print(summary(run, scores, options.show_undecided))
        print(f"report: {report}")


def read_settings(options: argparse.Namespace, more: Mapping[str, str | None] | None = None) -> Settings:
    """Settings with this command line on top."""
    flags = {
        "JUDGE_BASE_URL": options.judge_base_url,
        "JUDGE_MODEL": options.judge_model,
        "LOCAL_LLM": options.judge_local,
    }
    return load_settings({**flags, **(more or {})})


def judge_options(options: argparse.Namespace) -> "JudgeOptions":
    """How the judge is used, from the flags."""
    from rlfr_eval.judge.session import JudgeOptions

    return JudgeOptions(
        options.judge_force, options.judge_budget_tokens, options.judge_budget_usd, not options.no_judge_cache
    )


def read_judge(options: argparse.Namespace, settings: Settings) -> JudgeChoice | None:
    """The judge in force."""
    return choose_judge(settings, none=options.judge == "none")
