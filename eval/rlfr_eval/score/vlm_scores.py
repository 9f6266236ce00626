"""Scores other than the share of right answers: parts of a set, WeMath's dimensions, worst cases, groups."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rlfr_eval.json_types import JsonObject
from rlfr_eval.score.metrics import HEADLINE_UNDECIDED, ProblemResult, accuracy, bootstrap_interval, interval
from rlfr_vlm.grading import Verdict

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

LONGEST_GROUPS = 40  # values of a column; a column with more values is not broken down
ONE_STEP = 0.5  # WeMath's points for a problem whose steps are right and whose whole is wrong
PartT = TypeVar("PartT")


def more_scores(
    benchmark: "VlmBenchmark",
    problems: Sequence["VlmProblem"],
    results: Sequence[ProblemResult],
    rules: Sequence[ProblemResult],
) -> JsonObject:
    """Scores beside the share of right answers, or in its place.

    Args:
        results, rules: final results and results by rules alone, in the order of the problems, one sample each.
    """
    scores: JsonObject = {"notes": list(benchmark.notes)}
    if not benchmark.official:
        scores["reference"] = []
    reason = unscoreable(benchmark, problems)
    if reason:
        nothing = {"accuracy": None, "ci95": [0.0, 1.0], "standard_error": None, "lower": 0.0, "upper": 1.0}
        return {**scores, **nothing, "headline": False, "unscoreable": reason}
    pairs = list(zip(problems, results, strict=True))
    if benchmark.where:
        scores |= _of_a_part(benchmark.where, pairs, rules)
    metrics: dict[str, JsonObject] = {}
    if benchmark.metric == "wemath":
        dimensions = {kind: wemath(pairs, strict=kind == "strict") for kind in ("strict", "loose")}
        scores |= {key: dimensions["strict"][key] for key in ("accuracy", "ci95", "lower", "upper")}
        scores |= {"metric": "strict", "standard_error": None}
        scores["undecided_share"] = 1 - dimensions["strict"]["coverage"]  # of problems, which are several answers each
        scores["headline"] = scores["undecided_share"] <= HEADLINE_UNDECIDED
        scores["dimensions"] = {kind: score["dimensions"] for kind, score in dimensions.items()}
        metrics["loose"] = _shown(dimensions["loose"], dimensions["loose"]["n"])
        metrics["answers right"] = _shown(accuracy(list(results), 1), len(results))
    if benchmark.worst_of:
        metrics["worst case"] = worst_case(pairs, benchmark.worst_of)
    if benchmark.where:
        metrics["all rows"] = _shown(accuracy(list(results), 1), len(results))
    return {**scores, "metrics": metrics, "groups": by_group(benchmark.groups, pairs)}


def _of_a_part(
    where: Mapping[str, str], pairs: Sequence[tuple["VlmProblem", ProblemResult]], rules: Sequence[ProblemResult]
) -> JsonObject:
    """The score of the rows that match `where`, and who decided them."""
    matching = [
        (result, by_rules)
        for (problem, result), by_rules in zip(pairs, rules, strict=True)
        if _matches(problem, where)
    ]
    score = accuracy([result for result, _ in matching], 1)
    alone = accuracy([by_rules for _, by_rules in matching], 1)
    return {
        **score,
        "problems_scored": len(matching),
        "scored": dict(where),
        "not_scored": [problem.id for problem, _ in pairs if not _matches(problem, where)],
        "headline": score["coverage"] >= 1 - HEADLINE_UNDECIDED and bool(matching),
        "judged": alone["undecided"] - score["undecided"],  # a judge decides only what rules leave open
        "rules_only": {key: alone[key] for key in ("accuracy", "ci95", "coverage", "lower", "upper")},
    }


def unscoreable(benchmark: "VlmBenchmark", problems: Sequence["VlmProblem"]) -> str:
    """Why this part of a benchmark has no score; "" when it has one."""
    if benchmark.subset == "whole" and benchmark.n and len(problems) < benchmark.n:
        return f"its score is defined for all {benchmark.n} problems; these are {len(problems)}"
    if benchmark.subset == "values":
        for column, values in benchmark.values.items():
            missing = sorted(set(values) - {problem.fields.get(column) for problem in problems})
            if missing:
                return f"its score needs problems of every {column}; there is none of {', '.join(missing)}"
    if benchmark.metric == "wemath":
        broken = [key for key, members in _families([(problem, None) for problem in problems]).items() if not members]
        if broken:
            return f"WeMath's score needs all parts of a problem; of {broken[0][1]} some are missing"
    return ""


def _matches(problem: "VlmProblem", where: Mapping[str, str]) -> bool:
    return all(problem.fields.get(column) == value for column, value in where.items())


def _shown(score: JsonObject, count: int) -> JsonObject:
    return {key: score[key] for key in ("accuracy", "ci95", "lower", "upper")} | {"n": count}


def _families(pairs: Sequence[tuple["VlmProblem", PartT]]) -> dict[tuple[int, str], list[PartT]]:
    """(steps, ID) -> results of the steps and, last, of the whole problem; empty where a part is missing."""
    parts: dict[tuple[int, str], dict[str, PartT]] = defaultdict(dict)
    for problem, result in pairs:
        steps, _, part = str(problem.fields.get("key")).partition("steps_")
        if steps in ("2", "3"):
            parts[int(steps), str(problem.fields.get("ID"))][part] = result
    results = {}
    for (count, name), members in parts.items():
        expected = [*map(str, range(1, count + 1)), "multi"]
        results[count, name] = [members[part] for part in expected] if set(expected) <= set(members) else []
    return results


def wemath_dimension(steps: Sequence[bool], whole: bool, strict: bool) -> str:
    """Which of WeMath's four cases a problem is (Qiao et al. 2024, section 3.3).

    >>> wemath_dimension([True, True], False, True), wemath_dimension([True, False], True, False)
    ('inadequate generalization', 'complete mastery')
    """
    if not whole:
        return "inadequate generalization" if all(steps) else "insufficient knowledge"
    mastered = all(steps) if strict else any(steps)
    return "complete mastery" if mastered else "rote memorization"


def wemath(pairs: Sequence[tuple["VlmProblem", ProblemResult]], strict: bool) -> JsonObject:
    """WeMath's score: complete mastery, and half of inadequate generalization, of all multi-step problems.

    The bounds take undecided parts for wrong, or for right, which is where the score is least and greatest, because
    it grows with every right part. A problem is decided when both are the same; the others are left out of the value,
    which stays within the bounds.
    """
    values, low, high = [], [], []
    dimensions: dict[str, int] = defaultdict(int)
    members = _families(pairs)
    for parts in members.values():
        verdicts = [part.verdicts[0] for part in parts]
        least, most = (_dimension(verdicts, right, strict) for right in (set(), {Verdict.UNDECIDED}))
        low.append(_worth(least))
        high.append(_worth(most))
        if low[-1] == high[-1]:
            values.append(low[-1])
        if least == most:
            dimensions[least] += 1
    lower, upper = (sum(bound) / len(bound) if bound else float(bound is high) for bound in (low, high))
    return {
        "accuracy": min(max(sum(values) / len(values), lower), upper) if values else None,
        "ci95": list(bootstrap_interval(values)) if values else [0.0, 1.0],
        "lower": lower,
        "upper": upper,
        "n": len(members),
        "coverage": len(values) / len(members) if members else 0.0,
        "dimensions": dict(dimensions),
    }


def _dimension(verdicts: Sequence[Verdict], also_right: set[Verdict], strict: bool) -> str:
    right = [verdict is Verdict.RIGHT or verdict in also_right for verdict in verdicts]
    return wemath_dimension(right[:-1], right[-1], strict)


def _worth(dimension: str) -> float:
    return {"complete mastery": 1.0, "inadequate generalization": ONE_STEP}.get(dimension, 0.0)


def worst_case(pairs: Sequence[tuple["VlmProblem", ProblemResult]], column: str) -> JsonObject:
    """Share of questions all of whose variants are right; one wrong variant decides a question."""
    variants: dict[str, list[Verdict]] = defaultdict(list)
    for problem, result in pairs:
        variants[str(problem.fields.get(column))].append(result.verdicts[0])
    wrong = sum(Verdict.WRONG in verdicts for verdicts in variants.values())
    right = sum(set(verdicts) == {Verdict.RIGHT} for verdicts in variants.values())
    decided, count = wrong + right, len(variants)
    values = [1.0] * right + [0.0] * wrong
    return {
        "accuracy": right / decided if decided else None,
        "ci95": list(interval(values, 1)),
        "lower": right / count if count else 0.0,
        "upper": 1 - wrong / count if count else 1.0,
        "n": count,
    }


def by_group(columns: Sequence[str], pairs: Sequence[tuple["VlmProblem", ProblemResult]]) -> dict[str, JsonObject]:
    """Column -> value -> score. A column with too many values is left out."""
    scores: dict[str, JsonObject] = {}
    for column in columns:
        members: dict[str, list[ProblemResult]] = defaultdict(list)
        for problem, result in pairs:
            if (value := problem.fields.get(column)) is not None:
                members[value].append(result)
        if len(members) <= LONGEST_GROUPS:
            scores[column] = {
                value: _shown(accuracy(results, 1), len(results)) for value, results in sorted(members.items())
            }
    return scores
