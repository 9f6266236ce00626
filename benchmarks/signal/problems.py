"""Write problems of the embedded task word_problems to a file, without those of other files.

python benchmarks/signal/problems.py --out FILE.jsonl [--n 800] [--seed 0] [--without FILE.jsonl ...]
"""

import argparse
import json
from collections.abc import Collection
from itertools import islice
from pathlib import Path

from rlfr_vlm.data.rows import Row
from rlfr_vlm.data.word_problems import word_problems


def problems(n: int, seed: int, known: Collection[str] = ()) -> list[Row]:
    """Return `n` different problems of both splits, sorted by kind and length: batches of like length are faster.

    Args:
        known: questions that must not be among them.
    """
    rows = list(islice(word_problems(seed, known=known), n))
    if len(rows) < n:
        raise SystemExit(f"only {len(rows)} of {n} different problems were found; ask for fewer with --n")
    return sorted(rows, key=lambda row: (str(row["kind"]), len(str(row["prompt"]))))


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description="Write sums and short word problems with exact answers.")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--n", type=int, default=800, help="number of problems (default: 800)")
    parser.add_argument("--without", type=Path, nargs="*", default=[], help="files of problems to leave out")
    parser.add_argument("--seed", type=int, default=0, help="seed of the problems (default: 0)")
    options = parser.parse_args()
    known = [line for file in options.without for line in file.read_text(encoding="utf-8").splitlines()]
    questions = {json.loads(line)["prompt"][-1]["content"] for line in known}
    lines = [json.dumps(row) for row in problems(options.n, options.seed, questions)]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} problems in {options.out}")


if __name__ == "__main__":
    main()
