"""`rlfr-eval regrade`: grade stored answers with the current grader or another judge; the model is not asked."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
    from rlfr_eval.kinds.kind import Kind
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.schema import Selections
    from rlfr_vlm.env_settings import Settings
    from rlfr_vlm.files import JsonObject
    from rlfr_vlm.judging.choice import JudgeChoice

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
    """Regrade. Returns 3 if answers are missing or the judge failed on some."""
    from rlfr_eval.judge.phase import expected_cost
    from rlfr_eval.kinds.kind import open_kind
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.run.restore import restore

    settings = read_settings(options)
    choice = read_judge(options, settings)
    # opened read-only first, so that no file is created in a folder that is no run
    with RunStore(options.run_dir, read_only=True) as before, open_kind(before.run, settings) as kind:
        selections = restore(before, kind, options.data_dir)
        if options.dry_run:
            print(expected_cost(before, selections, settings, kind, choice))
            return 0
        with RunStore(options.run_dir) as store:
            store.save_run({"specs": {**store.run["specs"], **specs_of(selections)}})
            return grade_stored(options, store, selections, kind, choice, settings)


def grade_stored(
    options: argparse.Namespace,
    store: "RunStore",
    selections: "Selections",
    kind: "Kind",
    choice: "JudgeChoice | None",
    settings: "Settings",
) -> int:
    """Grade the answers of a run folder, ask the judge, score and report. Returns the command's exit code."""
    from rlfr_eval.judge.phase import judge_undecided
    from rlfr_eval.score.agreement import agreements
    from rlfr_eval.score.scores import score_run

    kind.grade(store, selections)
    report = judge_undecided(store, selections, kind, choice, settings, judge_options(options))
    scores = score_run(store, selections, store.run.get("judges", {}))
    deliver(options, store.folder, store.run, scores)
    for agreement in agreements(store):
        print(f"judges {agreement.line()}", file=sys.stderr)
    missing = any(score["missing"] for score in scores["benchmarks"].values())
    return EXIT_INCOMPLETE if report.unfinished or missing else 0


def specs_of(selections: "Selections") -> "dict[str, JsonObject]":
    """Return the `specs` of run.json. They change where VLMEvalKit has another version now."""
    return {name: dataclasses.asdict(selection.benchmark) for name, selection in selections.items()}
