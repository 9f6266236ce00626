"""`rlfr check-overlap`: find rows of benchmarks that are also in the training set."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from rlfr_vlm.data.load import Rows
    from rlfr_vlm.data.overlap import Fingerprints, Overlap

SUMMARY = "find benchmark rows in a training set, by perceptual image hash and text n-grams"
SHOWN_TEXT = 60  # characters of a row's text in the output


def parser() -> argparse.ArgumentParser:
    parser = options_parser("check-overlap", SUMMARY)
    parser.add_argument("train", help="the training set: a file, folder or hub id")
    parser.add_argument("--against", nargs="+", required=True, help="one or more benchmarks")
    parser.add_argument("--split", default="train", help="of the training set (default: %(default)s)")
    parser.add_argument("--against-split", default="train", help="of the benchmarks (default: %(default)s)")
    parser.add_argument("--columns", nargs="*", default=[], help="pairs such as prompt=question, for the training set")
    parser.add_argument("--ngram", type=int, default=13, help="words of an n-gram (default: %(default)s)")
    parser.add_argument(
        "--min-share",
        type=float,
        default=0.5,
        help="report texts that share at least this fraction of their n-grams (default: %(default)s)",
    )
    parser.add_argument(
        "--max-distance",
        type=int,
        default=4,
        help="report images whose 64-bit hashes differ in at most this many bits (default: %(default)s)",
    )
    parser.add_argument("--show", type=int, default=20, help="pairs to print of each benchmark (default: %(default)s)")
    parser.add_argument(
        "--fail-above",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="exit with 1 if more than this share of a benchmark's readable rows overlap (default: %(default)s, which "
        "is any row); the exit code is 0 otherwise, and 2 if a set cannot be compared",
    )
    parser.add_argument("--out", help="write all pairs and counts to this JSON file")
    return parser


def run(options: argparse.Namespace) -> int:
    """Compare the data sets and print the overlaps. Returns the exit code: 1 above `--fail-above`."""
    limits = (
        ("ngram", 1, 1000),
        ("min_share", 0, 1),
        ("max_distance", 0, 64),
        ("show", 0, 10**9),
        ("fail_above", 0, 1),
    )
    for name, low, high in limits:
        if not low <= getattr(options, name) <= high:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be {low} to {high}.")
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.data.overlap import count_rows, fingerprint_rows, overlaps
    from rlfr_vlm.files import make_folder, write_json
    from rlfr_vlm.library_output import silence_libraries

    silence_libraries()
    train = read_rows(
        DataOptions(dataset_name=options.train, dataset_split=options.split, dataset_columns=options.columns)
    )
    train_fingerprints = fingerprint_rows(train, options.ngram, options.train)
    refuse_unreadable(train_fingerprints, options.train)
    result, above = {}, []
    for name in options.against:
        benchmark = read_rows(DataOptions(dataset_name=name, dataset_split=options.against_split))
        fingerprints = fingerprint_rows(benchmark, options.ngram, name)
        refuse_unreadable(fingerprints, name)
        pairs = overlaps(train_fingerprints, fingerprints, options.max_distance, options.min_share)
        numbers = count_rows(pairs) | {"rows": len(fingerprints.ngrams), "bad_rows": fingerprints.bad}
        result[name] = {"counts": numbers, "pairs": [asdict(overlap) for overlap in pairs]}
        if numbers["benchmark_rows"] > options.fail_above * (numbers["rows"] - numbers["bad_rows"]):
            above.append(name)
        bad_rows = f"; {fingerprints.bad} rows could not be opened" if fingerprints.bad else ""
        print(
            f"{name}: {numbers['benchmark_rows']} of {numbers['rows']} rows overlap with {numbers['train_rows']} "
            f"training rows ({numbers['benchmark_rows_by_image']} by image, {numbers['benchmark_rows_by_text']} by "
            f"text){bad_rows}"
        )
        for overlap in pairs[: options.show]:
            print(_describe_overlap(overlap, train, benchmark))
        if len(pairs) > options.show:
            print(f"  ... and {len(pairs) - options.show} more pairs (--show, --out)")
    if train_fingerprints.bad:
        print(f"{train_fingerprints.bad} training rows could not be opened; `rlfr check-data` says why")
    if options.out:
        make_folder(Path(options.out).parent)
        write_json(Path(options.out), result)
    if above:
        print(f"more rows of {', '.join(above)} overlap than --fail-above {options.fail_above:g} allows: exit code 1")
    return int(bool(above))


def refuse_unreadable(fingerprints: "Fingerprints", name: str) -> None:
    """Refuse a data set of which no row can be compared: finding no overlap would mean nothing.

    Raises:
        UserError: all rows are bad.
    """
    if fingerprints.bad == len(fingerprints.ngrams):
        raise UserError(f"No row of {name} can be opened, so nothing is compared. `rlfr check-data` says why.")


def _describe_overlap(overlap: "Overlap", train: "Rows", benchmark: "Rows") -> str:
    from rlfr_vlm.data.prompts import flatten_text

    texts = []
    for rows, number in ((train, overlap.train), (benchmark, overlap.benchmark)):
        text = " ".join(message["content"] for message in flatten_text(rows.parse(number)["prompt"]))
        texts.append(f"row {number} {' '.join(text.split())[:SHOWN_TEXT]!r}")
    measure = f"distance {overlap.value:.0f}" if overlap.kind == "image" else f"{overlap.value:.0%} of its words"
    return f"  {overlap.kind}, {measure}: training {texts[0]}, benchmark {texts[1]}"
