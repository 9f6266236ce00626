"""Graded pairs per second: trivial pairs (decided without a worker process) and LaTeX pairs that need algebra.

    .venv/bin/python benchmarks/speed/grading.py [--rounds 5] [--json FILE]

LaTeX pairs are the expressions below with `+ 0` appended, so that no textual rule can decide them. Plain math-verify
in one process is measured on the same pairs.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from measuring import write_results

from rlfr_vlm.grading import Item, Verdict, grade_many, shared_pool

TEMPLATES = (
    r"\frac{%d}{7}", r"%d\sqrt{3}", r"\frac{%d\pi}{4}", r"2^{%d}-1", r"x^2-%dx+1", r"\frac{1}{s+%d}", r"%d+2\sqrt{5}",
    r"\sqrt{%d}", r"\frac{%d n(n+1)}{2}", r"%de^{-2t}", r"\log_2 %d", r"%d-3i", r"\cos %dx", r"\frac{%d+\sqrt{5}}{2}",
)  # fmt: skip


def trivial_pairs(count: int) -> list[Item]:
    """Pairs of strings, integers and option letters."""
    return [
        Item(str(i) if i % 3 else "B", answer=[str(i), f"{i}.0", "(C)"][i % 3 - 1 if i % 3 else 2])
        for i in range(count)
    ]


def latex_pairs(count: int, start: int = 2) -> list[Item]:
    """Pairs of equal expressions, each with a different gold. Another `start` gives pairs that no cache contains."""
    golds = [TEMPLATES[i % len(TEMPLATES)] % (i + start) for i in range(count)]
    return [Item(gold, answer=f"{gold} + 0") for gold in golds]


def rate(work: Callable[[int], object], count: int, rounds: int) -> dict[str, float]:
    """Pairs per second: minimum, median and maximum over rounds. `work` is called with the number of the round."""
    rates = []
    for number in range(rounds):
        start = time.perf_counter()
        work(number)
        rates.append(count / (time.perf_counter() - start))
    return {"min": min(rates), "median": statistics.median(rates), "max": max(rates)}


def plain_math_verify(items: list[Item]) -> None:
    """Grade with math-verify as its README does."""
    from math_verify import parse, verify

    for item in items:
        verify(gold=parse(f"${item.gold}$"), target=parse(f"${item.answer}$"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    trivial, latex = trivial_pairs(20_000), latex_pairs(700)
    start = time.perf_counter()
    first = grade_many(latex)
    cold = time.perf_counter() - start
    unexpected = [item.gold for item, grade in zip(latex, first, strict=True) if grade.verdict is not Verdict.RIGHT]
    results = {
        "trivial": rate(lambda number: grade_many(trivial), len(trivial), options.rounds),
        "latex": rate(lambda number: grade_many(latex_pairs(700, 1000 * (number + 1))), 700, options.rounds),
        "plain_math_verify": rate(
            lambda number: plain_math_verify(latex_pairs(700, 1000 * (number + 1))), 700, options.rounds
        ),
    }
    workers = shared_pool().settings.worker_count()
    print(f"{workers} workers; pairs per second, median [min, max] of {options.rounds} rounds")
    for name, value in results.items():
        print(f"{name:<20} {value['median']:8.0f} [{value['min']:.0f}, {value['max']:.0f}]")
    print(f"first 700 LaTeX pairs with the start of the workers: {cold:.1f} s; not graded right: {len(unexpected)}")
    write_results(options.json, "grading", results | {"cold_seconds": cold, "not_right": unexpected})


if __name__ == "__main__":
    main()
