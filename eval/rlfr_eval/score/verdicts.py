"""Verdicts: rules first, by the one grader; then what a judge said of what rules left undecided."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

from rlfr_eval.benchmarks.text import AnyBenchmark, Benchmark
from rlfr_eval.run.folder import RunStore
from rlfr_vlm.grading import Grade, Reason, Verdict, grade_many, grader_version
from rlfr_vlm.provenance import short_hash

BATCH = 512
PROVE_WRONG = ("number", "option")  # paths of the grader that hold for free text, too
NEEDED = {by: {"id", "answer", "verdict", "reason", more} for by, more in (("rules", "grading"), ("judge", "judge"))}
Chosen = Mapping[str, tuple[Any, tuple[Any, ...]]]  # name -> benchmark and its problems, of text or of images


class ExtractedAnswer(NamedTuple):
    """Final answer in a response (None if it has none), and how it was found."""

    answer: str | None
    how: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a sample stands: by rules alone, and in the end.

    Attributes:
        rules: the rules' verdict.
        final: the judge's where rules were undecided and it decided, else the rules'.
        reason: why it is undecided, or why the policy counts it as wrong.
        judged: whether the judge decided it.
        extracted: answer that the rules' verdict is about; None where they extract none (VLMEvalKit's sets) and in
            runs whose verdicts were stored without it: the sample's own is valid.
    """

    rules: Verdict
    final: Verdict
    reason: str = ""
    judged: bool = False
    extracted: ExtractedAnswer | None = None


def grading_key(benchmark: AnyBenchmark) -> str:
    """Hash of everything but the answer that decides a verdict of the rules."""
    return short_hash([grader_version(), *benchmark.grading()])


def grade_by_rules(store: RunStore, chosen: Chosen, on_graded: Callable[[int], None] = lambda count: None) -> int:
    """Append the rules' verdict for every answer that has none by this grader and these settings; returns how many."""
    keys = {name: grading_key(benchmark) for name, (benchmark, _) in chosen.items()}
    graded = {(row["id"], row["answer"], row["grading"]) for row in rule_lines(store)}
    problems = {(name, problem.id): problem for name, (_, all_problems) in chosen.items() for problem in all_problems}
    rows = (
        row
        for row in store.answers()
        if (row["benchmark"], row["problem"]) in problems
        and (row["id"], row["digest"], keys[row["benchmark"]]) not in graded
    )
    count = 0
    while batch := list(islice(rows, BATCH)):
        for tolerance in sorted({chosen[row["benchmark"]][0].tolerance for row in batch}):
            same = [row for row in batch if chosen[row["benchmark"]][0].tolerance == tolerance]
            grades = grade_many(
                [
                    chosen[row["benchmark"]][0].item(problems[row["benchmark"], row["problem"]], row["raw"])
                    for row in same
                ],
                tolerance=tolerance,
            )
            store.verdicts.append(
                *(_line(row, chosen[row["benchmark"]][0], grade) for row, grade in zip(same, grades, strict=True))
            )
        count += len(batch)
        on_graded(len(batch))
    return count


def rule_lines(store: RunStore) -> Iterator[dict[str, Any]]:
    """Verdicts by rules."""
    return _lines(store, "rules")


def _lines(store: RunStore, by: str) -> Iterator[dict[str, Any]]:
    """Verdict lines of the rules or of judges; a line that lacks something is passed over."""
    needed = NEEDED[by]
    return (row for row in store.verdicts if row.get("by") == by and needed <= row.keys())


def _line(row: Mapping[str, Any], benchmark: Benchmark, grade: Grade) -> dict[str, Any]:
    verdict, reason = grade.verdict, grade.reason
    if row["finish_reason"] == "content_filter" and verdict is not Verdict.RIGHT:
        verdict, reason = Verdict.UNDECIDED, "stopped by a content filter"
    elif reason == Reason.NO_ANSWER and (benchmark.no_answer == "wrong" or row["finish_reason"] == "length"):
        # a response that was cut off before it answered has not answered, whatever the policy
        verdict = Verdict.WRONG
    elif benchmark.free_text and verdict is Verdict.WRONG and grade.path not in PROVE_WRONG:
        verdict, reason = Verdict.UNDECIDED, Reason.FREE_TEXT
    return {
        "id": row["id"],
        "by": "rules",
        "answer": row["digest"],
        "grading": grading_key(benchmark),
        "grader": grader_version(),
        "verdict": verdict.value,
        "path": grade.path,
        "reason": reason,
        "extracted": grade.extracted,
        "how": grade.extraction.how,
    }


def with_extraction(row: Mapping[str, Any], standing: Standing | None) -> dict[str, Any]:
    """An answer with the extraction of the grader in force, which may be newer than the one in samples.jsonl."""
    if standing is None or standing.extracted is None:
        return dict(row)
    return {**row, "extracted": standing.extracted.answer, "how": standing.extracted.how}


def standings(store: RunStore, chosen: Chosen, judges: Mapping[str, str | None]) -> dict[str, Standing]:
    """Sample id -> where it stands.

    A verdict on another answer, by another grader, judge or reader, does not count; nor does a judge's verdict on
    another extraction than the one in force.

    Args:
        judges: benchmark -> identity of the judge whose verdicts count; None or absent: rules alone.
    """
    keys = {name: grading_key(benchmark) for name, (benchmark, _) in chosen.items()}
    readers = {name: benchmark.reader for name, (benchmark, _) in chosen.items()}
    answers = {
        row["id"]: (row["digest"], row["benchmark"], row["extracted"])
        for row in store.answers()
        if row["benchmark"] in chosen
    }
    results: dict[str, Standing] = {}
    for row in _lines(store, "rules"):
        answer, name, _ = answers.get(row["id"], ("", "", None))
        if name and (row["answer"], row["grading"]) == (answer, keys[name]):
            verdict = Verdict(row["verdict"])
            extracted = ExtractedAnswer(row["extracted"], row["how"]) if "how" in row else None
            results[row["id"]] = Standing(verdict, verdict, row["reason"], extracted=extracted)
    for row in _lines(store, "judge"):
        answer, name, stored = answers.get(row["id"], ("", "", None))
        standing = results.get(row["id"])
        if standing is None or standing.rules is not Verdict.UNDECIDED:
            continue
        if row["answer"] != answer or row["judge"] != judges.get(name) or row.get("reader", "") != readers[name]:
            continue
        in_force = stored if standing.extracted is None else standing.extracted.answer
        if row.get("extracted", stored) != in_force:  # older lines lack it: the judge got the sample's own
            continue
        verdict = Verdict(row["verdict"])
        if verdict is not Verdict.UNDECIDED:
            results[row["id"]] = replace(standing, final=verdict, reason="", judged=True)
        elif not standing.judged:
            results[row["id"]] = replace(standing, final=verdict, reason=row["reason"])
    return results


def undecided_answers(
    store: RunStore, chosen: Chosen, standing: Mapping[str, Standing], ungraded: bool = False
) -> Iterator[dict[str, Any]]:
    """Answers that a judge may be asked about, with the extraction in force.

    Args:
        ungraded: also those that rules have not seen yet.
    """
    wanted = {
        (name, problem.id): benchmark.sampling.samples
        for name, (benchmark, problems) in chosen.items()
        if benchmark.judge == "undecided"
        for problem in problems
    }
    for row in store.answers():
        if row["sample"] < wanted.get((row["benchmark"], row["problem"]), 0):
            place = standing.get(row["id"])
            if ungraded if place is None else place.final is Verdict.UNDECIDED:
                yield with_extraction(row, place)
