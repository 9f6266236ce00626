"""Compare lm-eval's scores with our verdicts on the same answers.

python benchmarks/smollm2/agreement.py LM_EVAL_SAMPLES.jsonl [...] --runs RUN [RUN ...] --out agreement.jsonl

Every response in the logs must be the one of the run, character by character; another one ends the comparison.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_text

# Names in the rows, and in lm-eval's logs.
SCORES = {
    "hendrycks": "hendrycks_exact_match",
    "minerva": "minerva_exact_match",
    "math_verify": "minerva_math_verify",
}


def read(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def verdicts(runs: list[Path]) -> dict[str, str]:
    """Return the verdict by rules of each answer; a later line replaces an earlier one, a later run an earlier run."""
    return {row["id"]: row["verdict"] for run in runs for row in read(run / "verdicts.jsonl") if row["by"] == "rules"}


def texts(runs: list[Path]) -> dict[str, str]:
    return {row["id"]: row["raw"] for run in runs for row in read(run / "samples.jsonl")}


def rows(logs: list[Path], runs: list[Path]) -> Iterator[dict[str, Any]]:
    """Yield one row for each problem of the logs, in their order.

    Raises:
        SystemExit: a response is not the one of the run.
    """
    ours, answers = verdicts(runs), texts(runs)
    for log in logs:
        for line in read(log):
            problem = line["doc"]["id"]
            identity = f"{problem.rsplit('-', 1)[0]}/{problem}/0"
            if line["resps"][0][0] != answers[identity]:
                raise SystemExit(f"{log} has another response to {problem} than the run; their scores say nothing.")
            scores = {name: line[there] for name, there in SCORES.items()}
            yield {"problem": problem, **scores, "verdict": ours[identity]}


def counts(table: list[dict[str, Any]], score: str) -> dict[str, int]:
    """Count how a score and our verdict meet."""
    pairs = Counter((row[score], row["verdict"]) for row in table)
    return {
        "right": sum(row[score] for row in table),
        "both right": pairs[1, "right"],
        "theirs only": pairs[1, "wrong"],
        "ours only": pairs[0, "right"],
        "undecided, right there": pairs[1, "undecided"],
        "undecided, wrong there": pairs[0, "undecided"],
        "both wrong": pairs[0, "wrong"],
    }


def main() -> None:
    """Print counts for each suite and score, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+", metavar="LM_EVAL_SAMPLES.jsonl")
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    table = list(rows(options.logs, options.runs))
    write_text(options.out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table))
    for suite in [*dict.fromkeys(row["problem"].rsplit("-", 1)[0] for row in table), ""]:
        of_suite = [row for row in table if row["problem"].startswith(suite)]
        for score in SCORES:
            print(suite or "all", len(of_suite), score, counts(of_suite, score))


if __name__ == "__main__":
    main()
