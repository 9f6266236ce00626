"""scores.json: everything that is known of a run, benchmark by benchmark."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark
from rlfr_eval.run.folder import SCORES_FILE, RunStore
from rlfr_eval.score.metrics import HEADLINE_UNDECIDED, accuracy, collect, over_samples
from rlfr_eval.score.verdicts import Chosen, Standing, standings, with_extraction
from rlfr_vlm.files import write_json
from rlfr_vlm.grading import grader_version

PAUSE = 60.0  # seconds without an answer, beyond the longest answer's own, after which a run was paused


def score_run(
    store: RunStore, chosen: Chosen, judges: Mapping[str, str | None], planned: Mapping[str, int]
) -> dict[str, Any]:
    """Score every benchmark of a run and write scores.json.

    Args:
        chosen: benchmarks and the problems that were to be answered.
        judges: identity of the judge in force for each, or None.
        planned: problems that each benchmark has in all; more than were to be answered makes a result partial.
    """
    standing = standings(store, chosen, judges)
    named = {judges.get(name) for name in chosen}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for row in store.answers():
        if row["benchmark"] in rows:
            rows[row["benchmark"]].append(_light(with_extraction(row, standing.get(row["id"]))))
    scores = {
        "judge": named.pop() if len(named) == 1 else "see each benchmark",
        "grader": grader_version(),
        "benchmarks": {
            name: {
                "judge": judges.get(name),
                **_score(benchmark, problems, rows[name], standing, planned[name]),
            }
            for name, (benchmark, problems) in chosen.items()
        },
        "judge_spent": store.run.get("judge_spent", []),
        "damaged_lines": store.samples.damaged + store.verdicts.damaged,
        "faults": dict(Counter(row["kind"] for row in store.failures).most_common()),
    }
    write_json(store.folder / SCORES_FILE, scores)
    return scores


def _light(row: Mapping[str, Any]) -> dict[str, Any]:
    """What scoring needs of an answer, without its text."""
    keys = (
        "id",
        "problem",
        "sample",
        "extracted",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
        "time",
    )
    return {key: row[key] for key in keys}


def _score(
    benchmark: AnyBenchmark,
    problems: Sequence[Any],
    rows: list[dict[str, Any]],
    standing: Mapping[str, Standing],
    planned: int,
) -> dict[str, Any]:
    samples, problem_ids = benchmark.sampling.samples, [problem.id for problem in problems]
    wanted = set(problem_ids)
    rows = [row for row in rows if row["problem"] in wanted and row["sample"] < samples]
    final, by_rules = collect(problem_ids, samples, rows, standing)
    score = accuracy(final, samples)
    expected = len(problem_ids) * samples
    share_undecided = 1.0 - score["coverage"]
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
        "headline": expected > 0 and share_undecided <= HEADLINE_UNDECIDED,
        "judged": sum(standing[row["id"]].judged for row in rows if row["id"] in standing),
        "rules_only": {key: rules[key] for key in ("accuracy", "ci95", "coverage", "lower", "upper")},
        "undecided_reasons": _reasons(rows, standing, score["undecided"]),
        **over_samples(final, samples),
        **_lengths(rows),
        "reference": [vars(reference) for reference in benchmark.reference],
        **benchmark.extra_scores(problems, final, by_rules),
    }


def _reasons(rows: Iterable[Mapping[str, Any]], standing: Mapping[str, Standing], undecided: int) -> dict[str, int]:
    """Why answers are undecided; those that are not there or not graded yet are `not answered`."""
    counts: Counter[str] = Counter()
    for row in rows:
        place = standing.get(row["id"])
        if place is not None and place.final.value == "undecided":
            counts[place.reason or "undecided"] += 1
    rest = undecided - counts.total()
    return dict(counts.most_common()) | ({"not answered": rest} if rest else {})


def _lengths(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Truncated and unanswered shares, lengths, tokens, time."""
    count = len(rows)
    lengths = [row["completion_tokens"] for row in rows if row["completion_tokens"] is not None]
    seconds = [row["seconds"] for row in rows]
    active = _active_seconds(rows)
    return {
        "truncated": sum(row["finish_reason"] == "length" for row in rows) / count if count else 0.0,
        "no_answer_found": sum(row["extracted"] is None for row in rows) / count if count else 0.0,
        "completion_tokens": {
            "mean": sum(lengths) / len(lengths) if lengths else None,
            "max": max(lengths, default=None),
            "total": sum(lengths),
        },
        "prompt_tokens_total": sum(row["prompt_tokens"] or 0 for row in rows),
        "latency_mean": sum(seconds) / count if count else None,
        "active_seconds": active,
        "answers_per_second": count / active if active else None,
    }


def _active_seconds(rows: Iterable[Mapping[str, Any]]) -> float:
    """Wall-clock time in which answers came, without the pauses between a run and its resumption.

    Gaps that no answer's own duration explains are pauses.
    """
    ordered = sorted(rows, key=lambda row: row["time"])
    if not ordered:
        return 0.0
    longest = max(row["seconds"] for row in ordered) + PAUSE
    times = [row["time"] for row in ordered]
    gaps = (after - before for before, after in pairwise(times))
    return ordered[0]["seconds"] + sum(gap for gap in gaps if gap <= longest)
