"""`rlfr-eval regrade`: new verdicts for stored answers, by today's grader or another judge; nothing is asked again."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_eval.commands.arguments import (
    EXIT_INCOMPLETE,
    add_judge_options,
    add_output_options,
    deliver,
    eval_parser,
    judge_options,
    read_judge,
    read_settings,
)

if TYPE_CHECKING:
    from rlfr_eval.score.verdicts import Chosen

SUMMARY = "grade stored answers again, and judge what is undecided"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("regrade", SUMMARY)
    given.add_argument("run_dir", type=Path)
    given.add_argument("--data-dir", type=Path, help="where the benchmark's file is now (default: where it was)")
    given.add_argument("--dry-run", action="store_true", help="count what the judge would be asked, and its cost")
    add_output_options(given)
    add_judge_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Regrade. Returns 3 when answers are missing, or the judge could not say all it was asked."""
    from rlfr_eval.judge.phase import expected_cost, judge_undecided
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.run.reopened import reopen
    from rlfr_eval.score.agreement import agreements
    from rlfr_eval.score.scores import score_run

    settings = read_settings(options)
    choice = read_judge(options, settings)
    # read first: a folder that is no run gets no files of ours
    with RunStore(options.run_dir, read_only=True) as before, reopen(before, settings, options.data_dir) as run:
        if options.dry_run:
            print(expected_cost(before, run.chosen, settings, run.prompts))
            return 0
        with RunStore(options.run_dir) as store:
            store.save_run(specs={**store.run["specs"], **specs_of(run.chosen)})
            run.grade(store)
            report = judge_undecided(store, run.chosen, choice, settings, judge_options(options), **run.judging)
            scores = score_run(store, run.chosen, store.run.get("judges", {}), run.planned)
            deliver(options, store.folder, store.run, scores)
            for agreement in agreements(store):
                print(f"judges {agreement.line()}", file=sys.stderr)
    missing = any(one["missing"] for one in scores["benchmarks"].values())
    return EXIT_INCOMPLETE if report.unfinished or missing else 0


def specs_of(chosen: "Chosen") -> dict[str, dict[str, Any]]:
    """Benchmarks as the record has them; VLMEvalKit may have another version now."""
    return {name: dataclasses.asdict(benchmark) for name, (benchmark, _) in chosen.items()}
