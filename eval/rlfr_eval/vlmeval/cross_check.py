"""Have VLMEvalKit evaluate the stored answers itself, and see whether its number is ours."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rlfr_eval.benchmarks.vlm import OPEN, VlmBenchmark
from rlfr_eval.run.folder import RunStore
from rlfr_eval.vlmeval.scoring import Scoring
from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_vlm.errors import UserError


def cross_check(store: RunStore, scoring: Scoring, scores: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Benchmark -> `own`: VLMEvalKit's score in percent, `here`: ours, or `why` there is none to compare.

    It gets the judge's replies as they were read here. What it would ask beyond them makes its number useless: it
    takes a missing reply for a wrong answer.
    """
    found: dict[str, dict[str, Any]] = {}
    predictions: dict[str, dict[str, str]] = {}
    for row in store.answers():
        predictions.setdefault(row["benchmark"], {})[row["problem"]] = row["raw"]
    judged = [row for row in store.verdicts if row.get("given")]
    for name, (benchmark, problems) in scoring.chosen.items():
        one = scores["benchmarks"][name]
        if why := _nothing_to_compare(benchmark, one):
            found[name] = {"why": why}
            continue
        given = {
            key: value
            for row in judged
            if row["judge"] == one["judge"]
            and row["id"].startswith(f"{name}/")
            and row.get("reader") == benchmark.reader
            for key, value in row["given"].items()
        }
        weights = Counter(str(value) for problem in problems for value in problem.fields.values())
        told = scoring.worker.evaluate(name, predictions[name], given)
        found[name] = _compared(benchmark, told, weights, 100 * one["accuracy"])
    return found


def _nothing_to_compare(benchmark: VlmBenchmark, one: Mapping[str, Any]) -> str:
    if benchmark.family == OPEN:
        return "it has no evaluation for it"
    if one.get("unscoreable"):
        return f"there is no score here, because {one['unscoreable']}"
    if one["partial"] or one["missing"] or one["undecided"]:
        return "not all is decided"
    return "" if benchmark.score else "no [score] says where its number stands"


def _compared(
    benchmark: VlmBenchmark, told: Mapping[str, Any], weights: Mapping[str, int], here: float
) -> dict[str, Any]:
    if told["needs"]:
        return {"why": f"it would ask the judge {len(told['needs'])} more things"}
    if told["failed"]:
        return {"why": f"it fails ({told['failed'][:200]})"}
    try:
        return {"own": upstream_percent(benchmark.name, benchmark.score, told["result"], weights), "here": here}
    except UserError as error:
        return {"why": str(error)}


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per benchmark."""
    return [
        f"{name}: VLMEvalKit's own evaluation "
        + (f"cannot be compared: {one['why']}" if "why" in one
           else f"says {one['own']:.2f}, here it is {one['here']:.2f}"
                + ("" if abs(one["own"] - one["here"]) < 0.01 else " (see quirks in `rlfr-eval list --vlm`)"))
        for name, one in found.items()
    ]  # fmt: skip
