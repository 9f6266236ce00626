"""Write sums and short word problems with exact answers, as rows that every command reads.

Each prompt begins with two worked examples as earlier turns: a language model of 135M parameters states its answer in
that form, and without them it is right in 5 % of its responses.

python benchmarks/signal/problems.py --out FILE.jsonl [--n 800] [--seed 0] [--without FILE.jsonl ...]
"""

import argparse
import json
import random
from collections.abc import Callable, Collection
from pathlib import Path

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "coins", "pencils", "shells", "stamps")
TRIES = 500  # draws for a problem, before its kind counts as used up
EXAMPLES = (
    ("What is 3 + 14?", "3 + 14 = 17. The answer is 17."),
    ("Ida has 9 pens and gives 4 away. How many pens are left?", "9 - 4 = 5. The answer is 5."),
)


def sum_of_two(draw: random.Random) -> tuple[str, str, int]:
    a, b = draw.randint(2, 20), draw.randint(2, 20)
    return f"What is {a} + {b}?", f"{a} + {b}", a + b


def difference(draw: random.Random) -> tuple[str, str, int]:
    a = draw.randint(5, 20)
    b = draw.randint(1, a - 1)
    return f"What is {a} - {b}?", f"{a} - {b}", a - b


def story(draw: random.Random) -> tuple[str, str, int]:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    a, b = draw.randint(2, 12), draw.randint(2, 9)
    if draw.random() < 0.5:
        question = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"
        return question, f"{a} + {b}", a + b
    low = min(a, b)
    question = f"{name} has {a + low} {thing} and gives {low} away. How many {thing} are left?"
    return question, f"{a + low} - {low}", a


# Each returns the question, the working and the answer.
KINDS: tuple[Callable[[random.Random], tuple[str, str, int]], ...] = (sum_of_two, difference, story)


def problems(n: int, seed: int, known: Collection[str] = ()) -> list[dict[str, object]]:
    """Return `n` different problems of all kinds, with expert responses, sorted by kind and length.

    Args:
        known: questions that must not be among them.
    """
    turns = [
        {"role": role, "content": text}
        for example in EXAMPLES
        for role, text in zip(("user", "assistant"), example, strict=True)
    ]
    draw, seen, rows = random.Random(seed), set(known), []
    used_up = tries = 0
    while len(rows) < n and used_up < len(KINDS):
        kind = KINDS[(len(rows) + used_up) % len(KINDS)]
        question, working, answer = kind(draw)
        tries += 1
        if tries > TRIES:
            used_up, tries = used_up + 1, 0
        elif question not in seen:
            seen.add(question)
            tries = used_up = 0
            rows.append(
                {
                    "prompt": [*turns, {"role": "user", "content": question}],
                    "answer": str(answer),
                    "response": f"{working} = {answer}. The answer is {answer}.",
                    "kind": kind.__name__,
                }
            )
    rows.sort(key=lambda row: (str(row["kind"]), len(str(row["prompt"]))))  # batches of like length are faster
    if len(rows) < n:
        raise SystemExit(f"only {len(rows)} of {n} different problems were found; ask for fewer with --n")
    return rows


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
