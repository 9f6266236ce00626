"""`rlfr check-data`: open every row of a data set and report bad rows before training."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import printable
from rlfr_vlm.options import BAD_ROW_LIMIT, DataOptions

if TYPE_CHECKING:
    from rlfr_vlm.data.check import DataReport

SUMMARY = "open every row of a data set once: what is wrong, what remains, how long prompts are"
EXIT_NOT_USABLE = 1


@dataclass
class CheckOptions:
    """Options of the check."""

    model_name_or_path: str = field(
        default="", metadata={"help": "A policy; its processor counts prompt tokens. Unset: they are not counted."}
    )
    needs: list[str] = field(
        default_factory=lambda: ["prompt", "answer"], metadata={"help": "Columns every row must have."}
    )
    out: str = field(default="outputs/check-data", metadata={"help": "Folder for report.json and the clean set."})
    max_dropped: float = field(
        default=BAD_ROW_LIMIT, metadata={"help": "The set is usable (exit code 0) if no larger share is dropped."}
    )
    workers: int = field(default=0, metadata={"help": "Processes; 0 is one per core."})


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options

    return describe_options(
        "rlfr check-data --dataset_name NAME [--config FILE.yaml] [--key value ...]",
        "Check a data set. Exit code 0: usable; 1: too many rows dropped; 2: it cannot be read at all.",
        CheckOptions,
        DataOptions,
        inherited="A training configuration can be given as --config; its other keys are ignored.",
    )


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.config_file import parser_of

    return [parser_of((DataOptions, CheckOptions))]


def run(arguments: Sequence[str]) -> int:
    """Check, print the table, write `report.json` and the clean set. Returns the exit code."""
    from rlfr_vlm.config_file import parse_config_subset
    from rlfr_vlm.data.check import check_rows
    from rlfr_vlm.data.clean import write_clean
    from rlfr_vlm.files import make_folder, write_json
    from rlfr_vlm.flow_options import FitOptions
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    silence_libraries()
    data, options = parse_config_subset(
        (DataOptions, CheckOptions), (ScriptArguments, FitOptions, RLFRConfig), arguments
    )
    out = Path(options.out)
    make_folder(out)
    report = check_rows(data, options.needs, options.model_name_or_path, options.workers)
    clean, settings = write_clean(data, report, out) if report.kept else (None, {})
    usable = bool(report.kept) and report.dropped_share <= options.max_dropped
    write_json(
        out / "report.json",
        {
            "dataset": data.dataset_name,
            "split": data.dataset_split,
            "rows": report.rows,
            "kept": len(report.kept),
            "dropped": dict(report.dropped),
            "examples": report.examples,
            "images": report.images,
            "tokens": report.tokens,
            "longest_prompt": report.longest,
            "notes": dict(report.notes),
            "usable": usable,
            "clean": settings,
        },
    )
    print(render_report(report))
    print(f"\nreport: {out / 'report.json'}")
    if clean:
        print("clean set: " + " ".join(f"--{name} {value}" for name, value in settings.items()))
    if not usable:
        print(
            f"not usable: {report.dropped_share:.1%} of the rows are dropped, more than max_dropped "
            f"{options.max_dropped:.1%}"
        )
    return 0 if usable else EXIT_NOT_USABLE


def render_report(report: "DataReport") -> str:
    """Render the report as text: a line for each kind of bad row, with an example and what mends it."""
    from rlfr_vlm.data.mends import mend_of
    from rlfr_vlm.data.row_checks import describe_notes

    lines = [
        f"{report.rows} rows: {len(report.kept)} kept, {report.rows - len(report.kept)} dropped; "
        f"{report.images} images in kept rows"
    ]
    for reason, count in report.dropped.most_common():
        example = " ".join(printable(report.examples[reason][0]).split())
        lines.append(f"  {count:>8}  {reason}: {example}. To mend: {mend_of(reason)}.")
    lines += describe_notes(report.notes)
    if report.tokens:
        lines.append(f"prompt tokens (longest {report.longest}):")
        largest = max(report.tokens.values())
        lines += [
            f"  {bucket:>12}  {count:>8}  {'#' * max(1, round(40 * count / largest))}"
            for bucket, count in report.tokens.items()
        ]
    return "\n".join(lines)
