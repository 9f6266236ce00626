"""Verdicts: rules first, by the one grader; then what a judge said of what rules left undecided."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from rlfr_eval.benchmarks import Benchmark
from rlfr_eval.problems import Problem
from rlfr_eval.store import RunStore
from rlfr_vlm.grading import Grade, Item, Reason, Verdict, grade_many, grader_version

BATCH = 512
Chosen = Mapping[str, tuple[Benchmark, tuple[Problem, ...]]]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a sample stands: by rules alone, and in the end.

    Attributes:
        rules: the rules' verdict.
        final: the judge's where rules were undecided and it decided, else the rules'.
        reason: why it is undecided, or why the policy counts it as wrong.
        judged: whether the judge decided it.
    """

    rules: Verdict
    final: Verdict
    reason: str = ""
    judged: bool = False


def grade_by_rules(store: RunStore, chosen: Chosen, on_graded: Callable[[int], None] = lambda count: None) -> int:
    """Append the rules' verdict for every answer that has none by this grader; returns how many."""
    version = grader_version()
    graded = {row["id"] for row in store.verdicts if row.get("by") == "rules" and row.get("grader") == version}
    problems = {
        (name, problem.id): (benchmark, problem)
        for name, (benchmark, all_problems) in chosen.items()
        for problem in all_problems
    }
    rows = (
        row for row in store.answers() if row["id"] not in graded and (row["benchmark"], row["problem"]) in problems
    )
    count = 0
    while batch := list(islice(rows, BATCH)):
        pairs = [problems[row["benchmark"], row["problem"]] for row in batch]
        for tolerance in sorted({benchmark.tolerance for benchmark, _ in pairs}):
            same = [i for i, (benchmark, _) in enumerate(pairs) if benchmark.tolerance == tolerance]
            items = [_item(batch[i], *pairs[i]) for i in same]
            grades = grade_many(items, tolerance=tolerance)
            store.verdicts.append(
                *(_line(batch[i], pairs[i][0], grade, version) for i, grade in zip(same, grades, strict=True))
            )
        count += len(batch)
        on_graded(len(batch))
    return count


def _item(row: Mapping[str, Any], benchmark: Benchmark, problem: Problem) -> Item:
    return Item(problem.golds, row["raw"], None, problem.options, benchmark.answer_type or None)


def _line(row: Mapping[str, Any], benchmark: Benchmark, grade: Grade, version: str) -> dict[str, Any]:
    verdict = grade.verdict
    # a response that was cut off before it answered has not answered, whatever the policy
    if grade.reason == Reason.NO_ANSWER and (benchmark.no_answer == "wrong" or row["finish_reason"] == "length"):
        verdict = Verdict.WRONG
    return {
        "id": row["id"],
        "by": "rules",
        "grader": version,
        "verdict": verdict.value,
        "path": grade.path,
        "reason": grade.reason,
    }


def standings(store: RunStore, judge: str | None) -> dict[str, Standing]:
    """Sample id -> where it stands.

    Args:
        judge: identity of the judge whose verdicts count; None: rules alone.
    """
    found: dict[str, Standing] = {}
    for row in store.verdicts:
        verdict = Verdict(row["verdict"])
        if row["by"] == "rules":
            found[row["id"]] = Standing(verdict, verdict, row["reason"])
    for row in store.verdicts:
        if row["by"] != "judge" or row["judge"] != judge or row["id"] not in found:
            continue
        standing, verdict = found[row["id"]], Verdict(row["verdict"])
        if standing.rules is not Verdict.UNDECIDED:
            continue
        if verdict is not Verdict.UNDECIDED:
            found[row["id"]] = Standing(standing.rules, verdict, "", True)
        elif not standing.judged:
            found[row["id"]] = Standing(standing.rules, verdict, row["reason"])
    return found


def undecided_answers(store: RunStore, chosen: Chosen, standing: Mapping[str, Standing]) -> Iterator[dict[str, Any]]:
    """Answers that a judge may be asked about."""
    for row in store.answers():
        place = standing.get(row["id"])
        if (
            place is not None
            and place.final is Verdict.UNDECIDED
            and row["benchmark"] in chosen
            and chosen[row["benchmark"]][0].judge == "undecided"
        ):
            yield row
