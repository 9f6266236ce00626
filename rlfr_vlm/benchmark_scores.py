"""What the scores of `rlfr-eval` say: as numbers to log, and in one line."""

from collections.abc import Mapping

from rlfr_vlm.files import JsonMapping, JsonObject


def scored_answers(score: JsonMapping) -> int:
    """Return the number of answers, or of questions of several rows, that a benchmark's score is about."""
    return int(score.get("answers_scored", score.get("problems_scored", score["answers_expected"])))


def metrics_of(scores: Mapping[str, JsonObject]) -> dict[str, float]:
    """Numbers to log of scores.json's benchmarks: accuracy, its interval, and the share undecided (missing included).

    >>> metrics_of({"toy": {"accuracy": 0.5, "ci95": [0.1, 0.9], "undecided": 2, "missing": 1, "answers_expected": 8}})
    {'benchmark/toy': 0.5, 'benchmark/toy_low': 0.1, 'benchmark/toy_high': 0.9, 'benchmark/toy_undecided': 0.25}
    """
    numbers: dict[str, float] = {}
    for name, score in scores.items():
        if score["accuracy"] is not None:
            low, high = score["ci95"]
            numbers |= {
                f"benchmark/{name}": score["accuracy"],
                f"benchmark/{name}_low": low,
                f"benchmark/{name}_high": high,
            }
        numbers[f"benchmark/{name}_undecided"] = score["undecided"] / max(scored_answers(score), 1)
    return numbers


def describe(scores: Mapping[str, JsonObject]) -> str:
    """Return the scores in one line.

    >>> describe({"mmbench": {"accuracy": None, "undecided": 2, "answers_scored": 2, "answers_expected": 8}})
    'mmbench undecided, 2 of 2 undecided'

    >>> describe({"toy": {"accuracy": 0.5, "ci95": [0.1, 0.9], "undecided": 1, "missing": 0, "answers_expected": 8}})
    'toy 0.500 [0.100, 0.900], 1 of 8 undecided'
    """
    parts = []
    for name, score in scores.items():
        undecided, answers = score["undecided"], scored_answers(score)
        number = "undecided"
        if score["accuracy"] is not None:
            number = f"{score['accuracy']:.3f} [{score['ci95'][0]:.3f}, {score['ci95'][1]:.3f}]"
        parts.append(f"{name} {number}" + (f", {undecided} of {answers} undecided" if undecided else ""))
    return "; ".join(parts)
