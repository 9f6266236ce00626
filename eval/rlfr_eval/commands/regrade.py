"""`rlfr-eval regrade`: new verdicts for stored answers, by today's grader or another judge; nothing is asked again."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rlfr_eval.commands.arguments import (
    EXIT_INCOMPLETE,
    add_judge_options,
    add_output_options,
    deliver,
    judge_options,
    parser,
    read_judge,
    read_settings,
)

SUMMARY = "grade stored answers again, and judge what is undecided"


def _parser() -> argparse.ArgumentParser:
    given = parser("regrade", SUMMARY)
    given.add_argument("run_dir", type=Path)
    given.add_argument("--data-dir", type=Path, help="where the benchmark's file is now (default: where it was)")
    given.add_argument("--dry-run", action="store_true", help="count what the judge would be asked, and its cost")
    add_output_options(given)
    add_judge_options(given)
    return given


def help_text() -> str:
    return _parser().format_help().rstrip()


def run(arguments: Sequence[str]) -> int:
    """Regrade. Returns 3 when answers are missing, or the judge could not say all it was asked."""
    options = _parser().parse_args(list(arguments))
    from rlfr_eval.judging import expected_cost, judge_undecided
    from rlfr_eval.runs import restore
    from rlfr_eval.scores import score_run
    from rlfr_eval.store import RunStore
    from rlfr_eval.verdicts import grade_by_rules

    settings = read_settings(options)
    choice = read_judge(options, settings)
    with RunStore(options.run_dir, read_only=True) as store:  # a folder that is no run gets no files of ours
        chosen, planned = restore(store, options.data_dir)
        if options.dry_run:
            print(expected_cost(store, chosen, settings))
            return 0
    with RunStore(options.run_dir) as store:
        grade_by_rules(store, chosen)
        report = judge_undecided(store, chosen, choice, settings, judge_options(options))
        scores = score_run(store, chosen, store.run.get("judges", {}), planned)
        deliver(options, store.folder, store.run, scores)
    missing = any(one["missing"] for one in scores["benchmarks"].values())
    return EXIT_INCOMPLETE if report.unfinished or missing else 0
