"""scores.json: the scores of a run by benchmark."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from rlfr_eval.run.folder import SCORES_FILE, RunStore
from rlfr_eval.schema import AnySelection, Sample, Selections
from rlfr_eval.score.metrics import accuracy, collect, has_number, over_samples
from rlfr_eval.score.verdicts import Standing, standings
from rlfr_vlm.files import JsonObject, write_json
from rlfr_vlm.grading import grader_version

PAUSE = 60.0  # seconds beyond the longest request; a longer gap between answers is a pause of the run


def score_run(store: RunStore, selections: Selections, judges: Mapping[str, str | None]) -> JsonObject:
    """Score every benchmark of a run and write scores.json.

    Args:
        selections: benchmarks and the problems that the model was to answer.
        judges: identity of the judge in force for each benchmark, or None.
    """
    standing = standings(store, selections, judges)
    judged = [name for name, selection in selections.items() if selection.benchmark.judge == "undecided"]
    identities = {judges.get(name) for name in judged} or {None}
    answers: dict[str, list[Sample]] = {name: [] for name in selections}
    for sample in store.answers():
        if sample.benchmark in answers:
            place = standing.get(sample.id)
            answers[sample.benchmark].append((place.apply(sample) if place else sample).without_text())
    scores: JsonObject = {
        "judge": identities.pop() if len(identities) == 1 else "see each benchmark",
        "grader": grader_version(),
        "benchmarks": {
            name: {"judge": judges.get(name), **_score(selection, answers[name], standing), **_imported(store, name)}
            for name, selection in selections.items()
        },
        "judge_spent": store.run.get("judge_spent", []),
        "damaged_lines": store.samples.damaged + store.verdicts.damaged,
        "faults": dict(Counter(failure.kind for failure in store.failed_requests()).most_common()),
    }
    write_json(store.folder / SCORES_FILE, scores)
    return scores


def _imported(store: RunStore, name: str) -> JsonObject:
    """What was not used of the files of another tool; empty where the model was asked here."""
    record = store.run.get("imported", {}).get(name)
    if record is None:
        return {}
    return {"imported": {"tool": record["tool"], "listed": record["listed"], "list_file": record["list_file"]}}


def read_scores(folder: Path) -> JsonObject | None:
    """scores.json of a run; None when it is missing or broken."""
    try:
        scores = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return scores if isinstance(scores, dict) and "benchmarks" in scores else None


def _score(selection: AnySelection, answers: list[Sample], standing: Mapping[str, Standing]) -> JsonObject:
    benchmark, planned = selection.benchmark, selection.planned
    samples, problem_ids = benchmark.sampling.samples, [problem.id for problem in selection.problems]
    wanted = set(problem_ids)
    rows = [sample for sample in answers if sample.problem in wanted and sample.sample < samples]
    final, by_rules = collect(problem_ids, samples, rows, standing)
    score = accuracy(final, samples)
    expected = len(problem_ids) * samples
    rules = accuracy(by_rules, samples)
    return {
        "title": benchmark.title,
        "metric": f"avg@{samples}" if samples > 1 else "pass@1",
        "problems": len(problem_ids),
        "problems_planned": planned,
        "partial": len(problem_ids) < planned,
        "samples": samples,
        "answers_expected": expected,
        "answered": len(rows),
        "missing": expected - len(rows),
        **score,
        "headline": has_number(score),
        "judged": sum(standing[row.id].judged for row in rows if row.id in standing),
        "rules_only": {key: rules[key] for key in ("accuracy", "ci95", "coverage", "lower", "upper")},
        "undecided_reasons": _reasons(rows, standing, score["undecided"]),
        **over_samples(final, samples),
        **_lengths(rows),
        "reference": [vars(reference) for reference in benchmark.reference],
        **benchmark.extra_scores(selection.problems, final, by_rules),
    }


def _reasons(rows: Iterable[Sample], standing: Mapping[str, Standing], undecided: int) -> dict[str, int]:
    """Number of undecided answers by reason; missing and ungraded ones are `not answered`."""
    counts: Counter[str] = Counter()
    for row in rows:
        place = standing.get(row.id)
        if place is not None and place.final.value == "undecided":
            counts[place.reason or "undecided"] += 1
    rest = undecided - counts.total()
    return dict(counts.most_common()) | ({"not answered": rest} if rest else {})


def _lengths(rows: list[Sample]) -> JsonObject:
    """Shares of truncated responses and of responses without an answer; lengths, tokens, time.

    The share of truncated responses is None where it is not known of any how it ended.
    """
    count = len(rows)
    ended = any(row.finish_reason for row in rows) or not rows
    lengths = [row.completion_tokens for row in rows if row.completion_tokens is not None]
    seconds = [row.seconds for row in rows]
    active = _active_seconds(rows)
    return {
        "truncated": (sum(row.finish_reason == "length" for row in rows) / max(1, count)) if ended else None,
        "no_answer_found": sum(row.extracted is None for row in rows) / count if count else 0.0,
        "completion_tokens": {
            "mean": sum(lengths) / len(lengths) if lengths else None,
            "max": max(lengths, default=None),
            "total": sum(lengths),
        },
        "prompt_tokens_total": sum(row.prompt_tokens or 0 for row in rows),
        "latency_mean": sum(seconds) / count if count else None,
        "active_seconds": active,
        "answers_per_second": count / active if active else None,
    }


def _active_seconds(rows: Iterable[Sample]) -> float:
    """Wall-clock seconds of the run without pauses, which are gaps that no request's duration explains."""
    ordered = sorted(rows, key=lambda row: row.time)
    if not ordered:
        return 0.0
    longest = max(row.seconds for row in ordered) + PAUSE
    times = [row.time for row in ordered]
    gaps = (after - before for before, after in pairwise(times))
    return ordered[0].seconds + sum(gap for gap in gaps if gap <= longest)
