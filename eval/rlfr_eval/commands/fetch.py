"""`rlfr-eval fetch`: download benchmark data at pinned revisions, and record it in the lock file."""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.errors import EXIT_USER_ERROR, UserError

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_vlm.files import JsonObject

SUMMARY = "download benchmark data at pinned revisions and write the lock file"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("fetch", SUMMARY)
    given.add_argument("names", nargs="+", metavar="NAME", help="suites, benchmarks or TOML files")
    given.add_argument("--vlm", action="store_true", help="names are multimodal benchmarks; files are VLMEvalKit's")
    given.add_argument(
        "--data-dir", help="where to (default: RLFR_EVAL_DATA, or the user's cache; with --vlm: LMUData, or ~/LMUData)"
    )
    given.add_argument("--relock", action="store_true", help="accept files that are there, although they changed")
    given.add_argument("--json", action="store_true", help="print the lock's entries as JSON")
    return given


def run(options: argparse.Namespace) -> int:
    """Fetch each benchmark. A failure does not stop the others. Returns 2 if one failed."""
    failed, entries = 0, {}
    for benchmark, get in _vlm(options) if options.vlm else _text(options):
        try:
            entry = entries[benchmark.name] = get()
        except UserError as error:
            print(f"{benchmark.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        if not options.json:
            known = benchmark.md5 if options.vlm else benchmark.content_sha256
            same = "" if not known or known == entry["content_sha256"] else " (not the copy its file was made with)"
            rows = f"{entry['rows']} rows, " if "rows" in entry else ""
            print(
                f"{benchmark.name}: {rows}hash {entry['content_sha256'][:12]}{same}, "
                f"licence {entry['licence']}, from {entry['source']} {entry['revision'][:12]}".rstrip()
            )
    if options.json:
        print(json.dumps(entries))
    return EXIT_USER_ERROR if failed else 0


def _text(options: argparse.Namespace) -> Iterator[Any]:
    from rlfr_eval.benchmarks.text import resolve
    from rlfr_eval.benchmarks.text_fetch import fetch
    from rlfr_eval.run.restore import data_folder
    from rlfr_vlm.env_settings import load_settings

    data_dir = data_folder(load_settings({"RLFR_EVAL_DATA": options.data_dir})["RLFR_EVAL_DATA"])
    for benchmark in resolve(options.names):
        yield benchmark, partial(fetch, benchmark, data_dir, options.relock)


def _vlm(options: argparse.Namespace) -> Iterator[Any]:
    from rlfr_eval.benchmarks.vlm import resolve_vlm
    from rlfr_eval.benchmarks.vlm_fetch import HostUnreachable, fetch_vlm, host_of
    from rlfr_eval.benchmarks.vlm_presets import vlm_preset
    from rlfr_eval.commands.vlm import vlm_data_folder
    from rlfr_eval.progress import download_bar
    from rlfr_vlm.env_settings import load_settings

    data_dir = vlm_data_folder(load_settings({"LMUData": options.data_dir}))
    unreachable: set[str] = set()

    def get(benchmark: "VlmBenchmark") -> "JsonObject":
        if host_of(benchmark) in unreachable and not (data_dir / f"{benchmark.vlmeval}.tsv").exists():
            raise UserError(f"{host_of(benchmark)} could not be reached before, so it is not tried again.")
        try:
            return fetch_vlm(benchmark, data_dir, options.relock, download_bar(benchmark.name))
        except HostUnreachable as error:
            unreachable.add(error.host)
            raise

    for benchmark in resolve_vlm(options.names, vlm_preset("official"), data_dir):
        yield benchmark, partial(get, benchmark)
