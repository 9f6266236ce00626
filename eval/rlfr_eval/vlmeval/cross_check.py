"""Have VLMEvalKit evaluate the stored answers itself, and compare its score with ours."""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.benchmarks.vlm import OPEN, VlmBenchmark
from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import Selection
from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

VlmSelections = Mapping[str, "Selection[VlmBenchmark, VlmProblem]"]
TOLERANCE = 0.01  # percent


def cross_check_run(folder: Path, worker: WorkerProcess, selections: VlmSelections, scores: JsonObject) -> None:
    """Compare, keep the result in run.json and print a line per benchmark."""
    with RunStore(folder) as store:
        results = cross_check(store, worker, selections, scores)
        store.save_run({"cross_check": results})
    print("\n".join(lines(results)), file=sys.stderr)


def cross_check(
    store: RunStore, worker: WorkerProcess, selections: VlmSelections, scores: JsonObject
) -> dict[str, JsonObject]:
    """Benchmark -> `own`: VLMEvalKit's score in percent, and `here`: ours; or `why` there is none to compare.

    VLMEvalKit gets the judge's replies as they were read here. If it would ask for more, its score is useless: it
    takes a missing reply for a wrong answer.
    """
    results: dict[str, JsonObject] = {}
    predictions: dict[str, dict[str, str]] = {}
    for sample in store.answers():
        predictions.setdefault(sample.benchmark, {})[sample.problem] = sample.raw
    judged = [line for line in store.judge_verdicts() if line.given]
    for name, selection in selections.items():
        benchmark, score = selection.benchmark, scores["benchmarks"][name]
        if why := _nothing_to_compare(benchmark, score):
            results[name] = {"why": why}
            continue
        given = {
            key: value
            for line in judged
            if line.judge == score["judge"] and line.id.startswith(f"{name}/") and line.reader == benchmark.reader
            for key, value in line.given.items()
        }
        weights = Counter(str(value) for problem in selection.problems for value in problem.fields.values())
        evaluation = worker.evaluate(name, predictions[name], given)
        results[name] = _compared(benchmark, evaluation, weights, 100 * score["accuracy"])
    return results


def _nothing_to_compare(benchmark: VlmBenchmark, score: JsonObject) -> str:
    if benchmark.family == OPEN:
        return "it has no evaluation for it"
    if score.get("unscoreable"):
        return f"there is no score here, because {score['unscoreable']}"
    if score["partial"] or score["missing"] or score["undecided"]:
        return "not all is decided"
    if benchmark.sampling.samples > 1:
        return "it takes one answer to a problem"
    return "" if benchmark.score else "no [score] says where its number stands"


def _compared(benchmark: VlmBenchmark, evaluation: JsonObject, weights: Mapping[str, int], here: float) -> JsonObject:
    if evaluation["needs"]:
        return {"why": f"it would ask the judge {len(evaluation['needs'])} more things"}
    if evaluation["failed"]:
        return {"why": f"it fails ({evaluation['failed'][:200]})"}
    try:
        return {"own": upstream_percent(benchmark.name, benchmark.score, evaluation["result"], weights), "here": here}
    except UserError as error:
        return {"why": str(error)}


def lines(results: Mapping[str, JsonObject]) -> list[str]:
    """A line per benchmark."""
    return [f"{name}: VLMEvalKit's own evaluation {_comparison(result)}" for name, result in results.items()]


def _comparison(result: JsonObject) -> str:
    if "why" in result:
        return f"cannot be compared: {result['why']}"
    text = f"says {result['own']:.2f}, here it is {result['here']:.2f}"
    same = abs(result["own"] - result["here"]) < TOLERANCE
    return text if same else f"{text} (see quirks in `rlfr-eval list --vlm`)"
