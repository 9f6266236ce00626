"""`rlfr-eval report`: the table of a run, and report.md beside it."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rlfr_eval.commands.arguments import add_output_options, deliver, parser
from rlfr_vlm.errors import UserError

SUMMARY = "print the scores of a run and write report.md"


def _parser() -> argparse.ArgumentParser:
    given = parser("report", SUMMARY)
    given.add_argument("run_dir", type=Path)
    add_output_options(given)
    return given


def help_text() -> str:
    return _parser().format_help().rstrip()


def run(arguments: Sequence[str]) -> int:
    """Print and write."""
    options = _parser().parse_args(list(arguments))
    from rlfr_eval.store import SCORES_FILE, RunStore

    with RunStore(options.run_dir, read_only=True) as store:
        try:
            scores = json.loads((options.run_dir / SCORES_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(
                f"{options.run_dir} has no readable {SCORES_FILE}: its run has not ended. Run it again to go on, or "
                f"`rlfr-eval regrade {options.run_dir}` to score what is there."
            ) from None
        deliver(options, options.run_dir, store.run, scores)
    return 0
