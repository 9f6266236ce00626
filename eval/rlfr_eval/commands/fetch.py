"""`rlfr-eval fetch`: get benchmark data at pinned revisions, and lock it."""

import argparse
import json
import sys
from collections.abc import Sequence

from rlfr_eval.commands.arguments import parser
from rlfr_vlm.errors import EXIT_USER_ERROR, UserError

SUMMARY = "download benchmark data at pinned revisions and write the lock file"


def _parser() -> argparse.ArgumentParser:
    given = parser("fetch", SUMMARY)
    given.add_argument("names", nargs="+", metavar="NAME", help="suites, benchmarks or TOML files")
    given.add_argument("--data-dir", help="where to (default: RLFR_EVAL_DATA, or the user's cache)")
    given.add_argument("--relock", action="store_true", help="accept files that are there, although they changed")
    given.add_argument("--json", action="store_true", help="print the lock's entries as JSON")
    return given


def help_text() -> str:
    return _parser().format_help().rstrip()


def run(arguments: Sequence[str]) -> int:
    """Fetch each; one that fails does not stop the others. Returns 2 when one failed."""
    from rlfr_eval.benchmarks import resolve
    from rlfr_eval.fetch import fetch
    from rlfr_eval.runs import data_folder
    from rlfr_eval.settings import load_settings

    options = _parser().parse_args(list(arguments))
    data_dir = data_folder(load_settings({"RLFR_EVAL_DATA": options.data_dir})["RLFR_EVAL_DATA"])
    failed, entries = 0, {}
    for benchmark in resolve(options.names):
        try:
            entry = entries[benchmark.name] = fetch(benchmark, data_dir, options.relock)
        except UserError as error:
            print(f"{benchmark.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        if not options.json:
            pinned = benchmark.content_sha256
            same = "" if not pinned or pinned == entry["content_sha256"] else " (not the copy its file was made with)"
            print(f"{benchmark.name}: {entry['rows']} rows, hash {entry['content_sha256'][:12]}{same}, "
                  f"licence {entry['licence']}, from {entry['source']} {entry['revision'][:12]}".rstrip())  # fmt: skip
    if options.json:
        print(json.dumps(entries))
    return EXIT_USER_ERROR if failed else 0
