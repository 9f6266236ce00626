"""`rlfr-eval report`: print the scores of runs, write report.md for each and one HTML page for all."""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import add_output_options, deliver, eval_parser
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import distinct_names

if TYPE_CHECKING:
    from rlfr_eval.report.page import Pairing
    from rlfr_eval.report.page_samples import Samples
    from rlfr_eval.run.folder import RunStore
    from rlfr_vlm.files import JsonObject

SUMMARY = "the scores of runs as a table, report.md and a page: bars, differences, every answer"
ANSWERS = 4000


def parser() -> argparse.ArgumentParser:
    given = eval_parser("report", SUMMARY)
    given.add_argument("run_dir", type=Path, nargs="+", help="the first is the one the others are compared with")
    given.add_argument(
        "--out", type=Path, help="where to write: a folder, or a file NAME.html (default: the run folders)"
    )
    given.add_argument(
        "--answers", type=int, default=ANSWERS, help="show at most so many answers on the page (default: %(default)s)"
    )
    given.add_argument("--data-dir", type=Path, help="where the benchmarks' files are now (default: where they were)")
    given.add_argument("--no-page", action="store_true", help="write report.md only")
    add_output_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Print the scores and write the reports. Returns the exit code."""
    if options.answers < 0:
        raise UserError(f"--answers is {options.answers}; it must be 0 or more.")
    from rlfr_eval.run.folder import RunStore

    folders = list({folder.resolve(): folder for folder in options.run_dir}.values())  # each once
    with ExitStack() as stack:
        stores = [stack.enter_context(RunStore(folder, read_only=True)) for folder in folders]
        all_scores = [scores_of(folder) for folder in folders]
        names = distinct_names(folders)
        for folder, name, store, scores in zip(folders, names, stores, all_scores, strict=True):
            report = _report_file(options.out, name if len(folders) > 1 else "")
            deliver(options, folder, store.run, scores, report, page_hint=False)
        if not options.no_page:
            page = _write_page(options, folders, names, stores, all_scores)
            if not options.json:
                print(f"page: {page}")
    return 0


def scores_of(folder: Path) -> "JsonObject":
    """Return the content of a run's scores.json.

    Raises:
        UserError: it is missing or broken.
    """
    from rlfr_eval.run.folder import SCORES_FILE
    from rlfr_eval.score.scores import read_scores

    scores = read_scores(folder)
    if scores is None:
        raise UserError(
            f"{folder} has no readable {SCORES_FILE}: its run has not ended. Run it again to go on, or "
            f"`rlfr-eval regrade {folder}` to score what is there."
        )
    return scores


def _report_file(out: Path | None, name: str) -> Path | None:
    """Return the file of a run's report below --out; None for the run folder. `name` tells several runs apart."""
    if out is None:
        return None
    folder = out.parent if out.suffix == ".html" else out
    return folder / (f"report-{name.replace('/', '--')}.md" if name else "report.md")


def _write_page(
    options: argparse.Namespace,
    folders: Sequence[Path],
    names: Sequence[str],
    stores: "Sequence[RunStore]",
    all_scores: "list[JsonObject]",
) -> Path:
    from rlfr_eval.report.page import PAGE_FILE, PagedRun, write_page

    runs = [PagedRun(name, store.run, scores) for name, store, scores in zip(names, stores, all_scores, strict=True)]
    samples = _samples(options, names, stores)
    out = options.out or folders[0]
    out = out if out.suffix == ".html" else out / PAGE_FILE
    return write_page(runs, _pairings(folders, names), samples, out, time.strftime("%Y-%m-%d %H:%M %z"))


def _samples(options: argparse.Namespace, names: Sequence[str], stores: "Sequence[RunStore]") -> "Samples":
    """Return the answers of all runs. Where data files are missing, the page says so and lacks the problems."""
    from rlfr_eval.kinds.kind import open_kind, recorded_benchmarks
    from rlfr_eval.report.page_samples import Samples, wanted_problems
    from rlfr_eval.run.restore import restore
    from rlfr_vlm.env_settings import load_settings

    samples = Samples(options.answers)
    wanted = wanted_problems(stores, options.answers)
    for number, (name, store) in enumerate(zip(names, stores, strict=True)):
        samples.add_run(number, store, recorded_benchmarks(store.run, store.folder), wanted)
        try:
            with open_kind(store.run, load_settings()) as kind:
                samples.add_problems(number, restore(store, kind, options.data_dir, all_problems=True), wanted)
        except UserError as error:
            samples.unreadable.append(f"The problems of {name} could not be read again: {error}")
    return samples


def _pairings(folders: Sequence[Path], names: Sequence[str]) -> "list[Pairing]":
    """Compare each run with the first one. A run that cannot be paired has the reason as its note."""
    from rlfr_eval.commands.compare import adjusted, differences_of, load_means
    from rlfr_eval.report.page import Pairing

    if len(folders) < 2:
        return []
    first, pairings = load_means(folders[0]), []
    for folder, name in zip(folders[1:], names[1:], strict=True):
        notes: list[str] = []
        try:
            differences = differences_of(first, load_means(folder), notes.append)
        except UserError as error:
            differences, notes = [], [str(error)]
        pairings.append(Pairing(name, differences, adjusted(differences), notes))
    return pairings
