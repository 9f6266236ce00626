"""Compare lm-eval's scores with our verdicts on the same answers, and the answers with those of another run.

python benchmarks/smollm2/agreement.py LM_EVAL_SAMPLES.jsonl IMPORTED_RUN OWN_RUN --out agreement.jsonl
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_text

SCORES = ("hendrycks_exact_match", "minerva_exact_match", "minerva_math_verify")


def read(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def verdicts(run: Path) -> dict[str, dict[str, Any]]:
    """Return the verdict by rules of each problem; a later line replaces an earlier one."""
    return {row["id"].split("/")[1]: row for row in read(run / "verdicts.jsonl") if row["by"] == "rules"}


def samples(run: Path) -> dict[str, dict[str, Any]]:
    return {row["problem"]: row for row in read(run / "samples.jsonl") if row["benchmark"] == "math500"}


def common_start(first: str, second: str) -> int:
    """Return the number of equal characters at the start."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def rows(log: Path, imported: Path, own: Path) -> Iterator[dict[str, Any]]:
    """Yield one row for each problem of the log."""
    theirs, ours = verdicts(imported), verdicts(own)
    answers, own_answers = samples(imported), samples(own)
    for line in read(log):
        problem = line["doc"]["id"]
        assert line["resps"][0][0] == answers[problem]["raw"], problem
        own_answer = own_answers.get(problem)
        yield {
            "problem": problem,
            **{name: line[name] for name in SCORES},
            "verdict": theirs[problem]["verdict"],
            "reason": theirs[problem]["reason"],
            "gold": line["doc"]["answer"],
            "extracted": (theirs[problem]["extracted"] or "")[:200] or None,
            "own_verdict": ours.get(problem, {}).get("verdict"),
            "characters": len(answers[problem]["raw"]),
            "equal_characters": common_start(answers[problem]["raw"], own_answer["raw"]) if own_answer else None,
            "same_text": answers[problem]["raw"] == own_answer["raw"] if own_answer else None,
        }


def main() -> None:
    """Print counts, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("imported", type=Path)
    parser.add_argument("own", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    table = list(rows(options.log, options.imported, options.own))
    write_text(options.out, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table))
    for name in SCORES:
        print(name, dict(Counter((row[name], row["verdict"]) for row in table)))
    print("own run", dict(Counter((row["own_verdict"], row["verdict"]) for row in table)))
    print("same text", dict(Counter(row["same_text"] for row in table)))


if __name__ == "__main__":
    main()
