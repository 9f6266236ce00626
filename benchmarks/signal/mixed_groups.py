"""Keep the rows of `rlfr sample` whose prompt has right and wrong responses; only they compare within a prompt.

python benchmarks/signal/mixed_groups.py --data FILE.jsonl --out FILE.jsonl
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path


def main() -> None:
    """Write the rows, and print how many prompts they belong to."""
    parser = argparse.ArgumentParser(description="Keep rows of prompts that have right and wrong responses.")
    parser.add_argument("--data", type=Path, required=True, help="JSONL file of `rlfr sample`")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    options = parser.parse_args()
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for line in options.data.read_text(encoding="utf-8").splitlines():
        groups[json.loads(line)["prompt_index"]].append(line)
    kinds = {prompt: {json.loads(line)["verdict"] for line in lines} for prompt, lines in groups.items()}
    mixed = [prompt for prompt, verdicts in kinds.items() if {"right", "wrong"} <= verdicts]
    options.out.write_text("".join(f"{line}\n" for prompt in mixed for line in groups[prompt]), encoding="utf-8")
    print(f"{len(mixed)} of {len(groups)} prompts have right and wrong responses")


if __name__ == "__main__":
    main()
