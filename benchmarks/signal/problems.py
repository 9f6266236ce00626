"""Write sums and short word problems with exact answers, as rows that every command reads.

python benchmarks/signal/problems.py --out FILE.jsonl [--n 800] [--seed 0]
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "coins", "pencils", "shells", "stamps")
TRIES = 50  # draws for each problem, before the problems are used up
INSTRUCTION = "Show one short step, then write: The answer is ..."


def sum_of_two(draw: random.Random) -> tuple[str, int]:
    a, b = draw.randint(2, 20), draw.randint(2, 20)
    return f"What is {a} + {b}?", a + b


def difference(draw: random.Random) -> tuple[str, int]:
    a = draw.randint(5, 40)
    b = draw.randint(1, a - 1)
    return f"What is {a} - {b}?", a - b


def sum_of_three(draw: random.Random) -> tuple[str, int]:
    a, b, c = draw.randint(2, 12), draw.randint(2, 12), draw.randint(1, 4)
    return f"What is {a} + {b} - {c}?", a + b - c


def story(draw: random.Random) -> tuple[str, int]:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    a, b = draw.randint(2, 12), draw.randint(2, 9)
    if draw.random() < 0.5:
        return f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", a + b
    low = min(a, b)
    return f"{name} has {a + low} {thing} and gives {low} away. How many {thing} are left?", a


KINDS: tuple[Callable[[random.Random], tuple[str, int]], ...] = (sum_of_two, difference, sum_of_three, story)


def problems(n: int, seed: int) -> list[dict[str, str]]:
    """Return `n` different problems, of all kinds in turn."""
    draw, seen, rows = random.Random(seed), set(), []
    for _ in range(TRIES * n):
        if len(rows) == n:
            break
        kind = KINDS[len(rows) % len(KINDS)]
        question, answer = kind(draw)
        if question not in seen:
            seen.add(question)
            rows.append({"prompt": f"{question} {INSTRUCTION}", "answer": str(answer), "kind": kind.__name__})
    if len(rows) < n:
        raise SystemExit(f"only {len(rows)} of {n} different problems were found; ask for fewer with --n")
    return rows


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description="Write sums and short word problems with exact answers.")
    parser.add_argument("--out", type=Path, required=True, help="JSONL file to write")
    parser.add_argument("--n", type=int, default=800, help="number of problems (default: 800)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the problems (default: 0)")
    options = parser.parse_args()
    lines = [json.dumps(row) for row in problems(options.n, options.seed)]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} problems in {options.out}")


if __name__ == "__main__":
    main()
