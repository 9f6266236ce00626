"""Keep the rows of `rlfr sample` whose prompt has right and wrong responses; only they compare within a prompt.

python benchmarks/signal/mixed_groups.py --data FILE.jsonl [FILE.jsonl ...] --out FILE.jsonl
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Write the rows, and print how many prompts they belong to."""
    parser = argparse.ArgumentParser(description="Keep rows of prompts that have right and wrong responses.")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="JSONL files of `rlfr sample`")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    options = parser.parse_args()
    groups: defaultdict[tuple[int, int], list[dict[str, object]]] = defaultdict(list)  # by file and prompt
    for number, file in enumerate(options.data):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            groups[number, row["prompt_index"]].append(row)
    mixed = [rows for rows in groups.values() if {"right", "wrong"} <= {row["verdict"] for row in rows}]
    lines = [json.dumps(row | {"prompt_index": index}) for index, rows in enumerate(mixed) for row in rows]
    options.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(mixed)} of {len(groups)} prompts have right and wrong responses")


if __name__ == "__main__":
    main()
