"""`rlfr report`: write the report page of one or several training runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_vlm.files import JsonObject

SUMMARY = "write a page about a run: curves, rollouts, coloured tokens, comparison of runs"
RESPONSES = 2000  # maximum number of responses on a page


def parser() -> argparse.ArgumentParser:
    parser = options_parser("report", SUMMARY)
    parser.add_argument("run_dir", type=Path, help="output_dir of a run")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN_DIR",
        help="further runs; runs that differ only in their seed are drawn as one line with a band",
    )
    parser.add_argument("--out", type=Path, help="folder for report.html, report.md and figures (default: the run's)")
    parser.add_argument(
        "--rollouts",
        type=int,
        default=RESPONSES,
        help="maximum number of responses on the page (default: %(default)s)",
    )
    parser.add_argument("--tokenizer", help="folder of the policy's tokenizer (default: the run's own)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the page. Returns the exit code."""
    if options.rollouts < 0:
        raise UserError(f"--rollouts is {options.rollouts}; it must be 0 or more.")
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.report.read_run import read_run
    from rlfr_vlm.report.run_report import PageOptions, write_training_report

    folders = {
        folder.resolve(): folder for folder in reversed([options.run_dir, *options.compare])
    }  # drops duplicates
    runs = [read_run(folder) for folder in reversed(folders.values())]
    silence_libraries()
    page_options = PageOptions(default_settings(), options.rollouts, options.tokenizer)
    page = write_training_report(runs, options.out or options.run_dir, page_options)
    print(f"report: {page}")
    return 0


def default_settings() -> "JsonObject":
    """Default of every setting of `rlfr train`."""
    from rlfr_vlm.config_file import resolved
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    return resolved(ScriptArguments(), RLFRConfig(output_dir="", use_cpu=True, bf16=False))
