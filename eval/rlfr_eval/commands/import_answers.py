"""`rlfr-eval import`: grade and score answers that another tool has asked for; the model is not asked."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import (
    add_judge_options,
    add_output_options,
    eval_parser,
    read_judge,
    read_settings,
)
from rlfr_eval.importing.entries import FORMATS, TOOLS
from rlfr_vlm.errors import UserError, printable

if TYPE_CHECKING:
    from rlfr_eval.importing.entries import AnswerFile
    from rlfr_eval.importing.writing import ImportedBenchmark
    from rlfr_eval.kinds.kind import Kind
    from rlfr_vlm.env_settings import Settings

SUMMARY = "score the answers in files of VLMEvalKit, lm-eval or lmms-eval"
SHOWN = 5  # lines of what was not used that are printed for each reason


def parser() -> argparse.ArgumentParser:
    given = eval_parser("import", SUMMARY)
    given.add_argument(
        "file",
        type=Path,
        nargs="+",
        help="one model's prediction files of VLMEvalKit (xlsx, tsv), or logs of lm-eval or lmms-eval (--log_samples)",
    )
    given.add_argument(
        "--benchmark",
        metavar="NAME",
        help="what the files answer: a name (see `rlfr-eval list`), a TOML or a data file (default: by their names)",
    )
    given.add_argument("--format", choices=FORMATS, help="the tool that wrote the files (default: by their contents)")
    given.add_argument("--model", metavar="NAME", help="the model that answered (default: what the files say)")
    given.add_argument(
        "--data-dir", help="folder with NAME.jsonl or NAME.tsv files (default: that of `rlfr-eval lm` or `vlm`)"
    )
    given.add_argument(
        "--preset",
        default="official",
        choices=["official", "paper", "training"],
        help="score VLMEvalKit's sets as under this preset (default: %(default)s)",
    )
    given.add_argument("--out", help="run folder (default: outputs/eval/MODEL--TOOL)")
    given.add_argument("--limit", type=int, help="only the first N problems of each; marks results as partial")
    given.add_argument("--dry-run", action="store_true", help="say what matches and what does not; write nothing")
    add_output_options(given)
    add_judge_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Import. Returns 0 if every problem has its answers and is judged, else 3."""
    from rlfr_eval.commands.regrade import grade_stored
    from rlfr_eval.importing.writing import write_answers
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.run.restore import restore

    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit is {options.limit}; it must be at least 1.")
    settings = read_settings(options, {"RLFR_EVAL_DATA": options.data_dir, "LMUData": options.data_dir})
    choice = read_judge(options, settings)
    files = _read(options, settings)
    model = options.model or _model(files)
    with _imported(options, files, settings) as (kind, data_dir, imported):
        for one in imported:
            _print_matches(one, model)
        if options.dry_run:
            return 0
        label = re.sub(r"[^\w.+-]+", "--", model)
        folder = Path(options.out or Path("outputs/eval") / f"{label}--{files[0].format}")
        with RunStore(folder) as store:
            write_answers(store, kind, imported, model, data_dir, options.limit)
            others = restore(store, kind, exclude=[one.name for one in imported])
            ours = {one.name: one.opened.select(store.run["limits"][one.name]) for one in imported}
            return grade_stored(options, store, {**others, **ours}, kind, choice, settings)


def _read(options: argparse.Namespace, settings: "Settings") -> "list[AnswerFile]":
    """Read the files, each once.

    Raises:
        UserError: one cannot be read, or they are of several tools.
    """
    from rlfr_eval.commands.vlm import vlm_data_folder
    from rlfr_eval.importing.formats import read_file
    from rlfr_eval.importing.targets import dataset_names

    paths = list({path.resolve(): path for path in options.file}.values())
    datasets = dataset_names(options.benchmark, vlm_data_folder(settings))
    files = [read_file(path, options.format, datasets) for path in paths]
    if len({file.format for file in files}) > 1:
        found = ", ".join(f"{file.path} of {TOOLS[file.format]}" for file in files)
        raise UserError(f"The files are of several tools: {found}. Import each tool's into a folder of its own.")
    for file in files:
        for note in file.notes:
            print(f"note: {file.path}: {note}", file=sys.stderr)
    return files


def _model(files: "Sequence[AnswerFile]") -> str:
    """Return the model that all files name.

    Raises:
        UserError: they name none, or several.
    """
    names = sorted({file.model for file in files})
    if len(names) > 1 and all(names):
        raise UserError(
            f"The files are of several models: {', '.join(names)}. Import each one's into a folder of its own, or "
            "name the model with --model."
        )
    if not names[-1]:
        raise UserError(f"{files[0].path} does not say which model answered. Name it with --model.")
    return names[-1]


@contextmanager
def _imported(
    options: argparse.Namespace, files: "Sequence[AnswerFile]", settings: "Settings"
) -> "Iterator[tuple[Kind, Path, list[ImportedBenchmark]]]":
    """Yield the kind, the data folder, and each benchmark with its answers; VLMEvalKit's process runs inside.

    Raises:
        UserError: a benchmark is not known, its data are missing, or no answer is to one of its problems.
    """
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_eval.commands.vlm import vlm_data_folder
    from rlfr_eval.importing.targets import target_of
    from rlfr_eval.importing.writing import match_benchmark
    from rlfr_eval.kinds.kind import open_kind
    from rlfr_eval.run.restore import data_folder

    lmu = vlm_data_folder(settings)
    targets = [target_of(file, options.benchmark, options.preset, lmu) for file in files]
    by_name = {benchmark.name: benchmark for benchmark in targets}
    is_vlm = {isinstance(benchmark, VlmBenchmark) for benchmark in targets}
    if len(is_vlm) > 1:
        raise UserError(f"{', '.join(by_name)} are text and multimodal benchmarks. Import each kind by itself.")
    data_dir = lmu if is_vlm == {True} else data_folder(settings["RLFR_EVAL_DATA"])
    with open_kind({"kind": "vlm" if is_vlm == {True} else "lm"}, settings) as kind:
        imported = []
        for name, benchmark in by_name.items():
            some = [file for file, target in zip(files, targets, strict=True) if target.name == name]
            imported.append(match_benchmark(kind.open(benchmark, data_dir), some, options.limit))
        yield kind, data_dir, imported


def _print_matches(imported: "ImportedBenchmark", model: str) -> None:
    """Print what was matched, and the first lines of what was not used."""
    matches = imported.matches
    print(
        printable(
            f"{imported.name}: {matches.entries} entries of {imported.tool} for {model}, answers to "
            f"{len(matches.found)} of {len(imported.opened.data.problems)} problems, {matches.samples} each"
        ),
        file=sys.stderr,
    )
    for remark, count in matches.counts().items():
        print(f"  {count} x {remark}", file=sys.stderr)
        lines = [one.line() for one in matches.listed if one.remark.value == remark]
        for line in lines[:SHOWN]:
            print(printable(f"    {line}"), file=sys.stderr)
        if len(lines) > SHOWN:
            print(f"    and {len(lines) - SHOWN} more, in {imported.list_file}", file=sys.stderr)
