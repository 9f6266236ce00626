"""`rlfr-eval table`: runs as rows, benchmarks as columns, for a paper or a spreadsheet; means over seeds."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.errors import UserError, printable

if TYPE_CHECKING:
    from rlfr_eval.report.paper_table import Row

SUMMARY = "runs as rows and benchmarks as columns: text, Markdown, CSV or LaTeX; means over seeds or checkpoints"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("table", SUMMARY)
    given.add_argument(
        "rows",
        nargs="+",
        metavar="RUN_DIR or LABEL=RUN_DIR,RUN_DIR",
        help="a run, or the mean over several runs, such as seeds of one method or checkpoints of one training",
    )
    given.add_argument("--format", choices=["text", "markdown", "csv", "latex"], default="text")
    given.add_argument("--out", type=Path, help="write the table into this file instead of printing it")
    return given


def run(options: argparse.Namespace) -> int:
    """Print or write the table."""
    from rlfr_eval.report.paper_table import FORMATS
    from rlfr_vlm.files import write_text

    text = FORMATS[options.format](_rows(options.rows))
    if options.out:
        write_text(options.out, text + "\n")
        print(f"table: {options.out}")
    else:
        print(printable(text))
    return 0


def _rows(arguments: Sequence[str]) -> "list[Row]":
    """Return the rows that the arguments name; a run's label is its folder, as short as tells them apart."""
    from rlfr_eval.commands.report import scores_of
    from rlfr_eval.report.paper_table import Row
    from rlfr_vlm.files import distinct_names

    groups = [_folders(argument) for argument in arguments]
    single = [folders[0] for label, folders in groups if not label]
    names = iter(distinct_names(single) if single else [])
    rows = []
    for label, folders in groups:
        scores = [scores_of(folder)["benchmarks"] for folder in folders]
        _check_same(folders)
        rows.append(Row(label or next(names), scores))
    return rows


def _folders(argument: str) -> tuple[str, list[Path]]:
    """Return label and folders of a row; the label is "" for one run.

    Raises:
        UserError: a row has no label or no folder, or names a folder twice.
    """
    if "=" not in argument or Path(argument).is_dir():
        return "", [Path(argument)]
    label, _, names = argument.partition("=")
    folders = [Path(name).expanduser() for name in names.split(",") if name.strip()]
    if not label or not folders:
        raise UserError(f"{argument!r} is no row. Write RUN_DIR, or LABEL=RUN_DIR,RUN_DIR for a mean over runs.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"{argument!r} names a run twice.")
    return label, folders


def _check_same(folders: Sequence[Path]) -> None:
    """Refuse a mean over runs with other problems, and note what else differs but the seed.

    Raises:
        UserError: a benchmark has other problems in one of the runs.
    """
    from rlfr_eval.run.folder import RunStore, differences

    records = []
    for folder in folders:
        with RunStore(folder, read_only=True) as store:
            records.append(store.run)
    for name, first in records[0]["benchmarks"].items():
        for folder, record in zip(folders[1:], records[1:], strict=True):
            other = record["benchmarks"].get(name, first)
            if other["data_sha256"] != first["data_sha256"]:
                raise UserError(f"{name} has other problems in {folder} than in {folders[0]}; there is no mean.")
            judges = [one.get("judges", {}).get(name) or "none" for one in (records[0], record)]
            changes = [change for change in differences(first, other) if not change.startswith("sampling.seed:")]
            changes += [f"judge: {judges[0]} -> {judges[1]}"] if judges[0] != judges[1] else []
            if changes:
                print(f"note: {name} was measured differently in {folder}: {'; '.join(changes)}", file=sys.stderr)
