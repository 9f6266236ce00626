"""Scores other than the share of right answers: parts of a set, questions of several rows, WeMath's dimensions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rlfr_eval.score.metrics import HEADLINE_UNDECIDED, ProblemResult, accuracy, has_number
from rlfr_eval.score.questions import by_question, question_scores, row_scores
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.stats import clustered_interval

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

LONGEST_GROUPS = 40  # values of a column; a column with more values is not broken down
HALVES = 2  # half points of a problem, which its interval counts as answers
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
        results, rules: final results and results by rules alone, in the order of the problems.
    """
    samples = benchmark.sampling.samples
    scores: JsonObject = {"notes": list(benchmark.notes)}
    if not benchmark.official:
        scores["reference"] = []
    if benchmark.grouping:
        scores["question_of"] = {problem.id: problem.question_id for problem in problems}
    reason = unscoreable(benchmark, problems)
    if reason:
        nothing = {"accuracy": None, "ci95": [0.0, 1.0], "standard_error": None, "lower": 0.0, "upper": 1.0}
        return {**scores, **nothing, "headline": False, "unscoreable": reason}
    metrics: dict[str, JsonObject] = {}
    if benchmark.grouping:
        single = row_scores(problems, results, benchmark.grouping, samples)
        metrics = {name: _shown(score, score["n"]) for name, score in single.items()}
        questions = [problem.question_id for problem in problems]
        final, alone = by_question(questions, results), by_question(questions, rules)
        scores |= question_scores(benchmark.grouping, benchmark.questions, final, alone, samples)
        first_rows = {problem.id: problem for problem in problems}
        problems = [first_rows[question] for question in final]
        results, rules = list(final.values()), list(alone.values())
    pairs = list(zip(problems, results, strict=True))
    if benchmark.where:
        scores |= _of_a_part(benchmark.where, pairs, rules, samples)
    if benchmark.metric == "wemath":
        dimensions = {kind: wemath(pairs, kind == "strict", samples) for kind in ("strict", "loose")}
        scores |= {key: dimensions["strict"][key] for key in ("accuracy", "ci95", "lower", "upper")}
        scores |= {"metric": "strict", "standard_error": None}
        scores["undecided_share"] = 1 - dimensions["strict"]["coverage"]  # of problems, which are several answers each
        scores["headline"] = scores["undecided_share"] <= HEADLINE_UNDECIDED
        scores["dimensions"] = {kind: score["dimensions"] for kind, score in dimensions.items()}
        metrics["loose"] = _shown(dimensions["loose"], dimensions["loose"]["n"])
        metrics["answers right"] = _shown(accuracy(results, samples), len(results))
    if any(result.points for result in results):
        scores["metric"] = "mean score"
        whole = [replace(result, points={}) for result in results]
        metrics["full marks"] = _shown(accuracy(whole, samples), len(results))
    if benchmark.worst_of:
        metrics["worst case"] = worst_case(pairs, benchmark.worst_of, samples)
    if benchmark.where:
        metrics["all questions" if benchmark.grouping else "all rows"] = _shown(
            accuracy(results, samples), len(results)
        )
    return {**scores, "metrics": metrics, "groups": by_group(benchmark.groups, pairs, samples)}


def _of_a_part(
    where: Mapping[str, str],
    pairs: Sequence[tuple["VlmProblem", ProblemResult]],
    rules: Sequence[ProblemResult],
    samples: int,
) -> JsonObject:
    """The score of the rows that match `where`, and who decided them."""
    matching = [
        (result, by_rules)
        for (problem, result), by_rules in zip(pairs, rules, strict=True)
        if _matches(problem, where)
    ]
    score = accuracy([result for result, _ in matching], samples)
    alone = accuracy([by_rules for _, by_rules in matching], samples)
    return {
        **score,
        "problems_scored": len(matching),
        "answers_scored": len(matching) * samples,
        "scored": dict(where),
        "not_scored": [problem.id for problem, _ in pairs if not _matches(problem, where)],
        "headline": has_number(score),
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


def wemath(pairs: Sequence[tuple["VlmProblem", ProblemResult]], strict: bool, samples: int = 1) -> JsonObject:
    """WeMath's score: complete mastery, and half of inadequate generalization, of all multi-step problems.

    The bounds take undecided parts for wrong, or for right, which is where the score is least and greatest, because
    it grows with every right part. A problem is decided when both are the same; the others are left out of the value,
    which stays within the bounds. Of several samples, the k-th ones of a problem's parts belong together.
    """
    means, low, high = [], [], []
    decided = 0
    dimensions: dict[str, int] = defaultdict(int)
    members = _families(pairs)
    for parts in members.values():
        values = []
        for verdicts in zip(*(part.verdicts for part in parts), strict=True):
            least, most = (_dimension(verdicts, right, strict) for right in (set(), {Verdict.UNDECIDED}))
            low.append(_worth(least))
            high.append(_worth(most))
            if low[-1] == high[-1]:
                values.append(low[-1])
            if least == most:
                dimensions[least] += 1
        decided += len(values)
        means += [sum(values) / len(values)] if values else []
    lower, upper = (sum(bound) / len(bound) if bound else float(bound is high) for bound in (low, high))
    return {
        "accuracy": min(max(sum(means) / len(means), lower), upper) if means else None,
        "ci95": list(clustered_interval(means, HALVES * samples)),
        "lower": lower,
        "upper": upper,
        "n": len(members),
        "coverage": decided / len(low) if low else 0.0,
        "dimensions": dict(dimensions),
    }


def _dimension(verdicts: Sequence[Verdict], also_right: set[Verdict], strict: bool) -> str:
    right = [verdict is Verdict.RIGHT or verdict in also_right for verdict in verdicts]
    return wemath_dimension(right[:-1], right[-1], strict)


def _worth(dimension: str) -> float:
    return {"complete mastery": 1.0, "inadequate generalization": ONE_STEP}.get(dimension, 0.0)


def worst_case(pairs: Sequence[tuple["VlmProblem", ProblemResult]], column: str, samples: int) -> JsonObject:
    """Share of questions all of whose variants are right; one wrong variant decides a question.

    Of several samples, the k-th ones of a question's variants belong together.
    """
    worst = by_question((str(problem.fields.get(column)) for problem, _ in pairs), (result for _, result in pairs))
    return _shown(accuracy(worst.values(), samples), len(worst))


def by_group(
    columns: Sequence[str], pairs: Sequence[tuple["VlmProblem", ProblemResult]], samples: int
) -> dict[str, JsonObject]:
    """Column -> value -> score. A column with too many values is left out."""
    scores: dict[str, JsonObject] = {}
    for column in columns:
        members: dict[str, list[ProblemResult]] = defaultdict(list)
        for problem, result in pairs:
            if (value := problem.fields.get(column)) is not None:
                members[value].append(result)
        if len(members) <= LONGEST_GROUPS:
            scores[column] = {
                value: _shown(accuracy(results, samples), len(results)) for value, results in sorted(members.items())
            }
    return scores
