"""Scores over questions that have several rows: a question is right only if all of its rows are.

The rows are shifts of its options in circular sets, two images in MMVP.

CircularEval: Liu et al. 2023, MMBench, section 4.1. A question with a wrong row is wrong, whatever its other rows are;
one without a wrong row, but with an undecided or unanswered one, is undecided.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rlfr_eval.score.metrics import ProblemResult, accuracy, has_number, over_samples
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.stats import clustered_interval

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

PASSES = " | "  # between the answers to the rows of a question


def all_right(verdicts: Sequence[Verdict]) -> Verdict:
    """Whether all rows of a question are right.

    >>> all_right([Verdict.RIGHT, Verdict.UNDECIDED]).value, all_right([Verdict.WRONG, Verdict.UNDECIDED]).value
    ('undecided', 'wrong')
    """
    if Verdict.WRONG in verdicts:
        return Verdict.WRONG
    return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.RIGHT


def by_question(questions: Iterable[str], results: Iterable[ProblemResult]) -> dict[str, ProblemResult]:
    """Question -> its result. Of several samples, the k-th ones of a question's rows belong together.

    Args:
        questions, results: of each row.
    """
    members: dict[str, list[ProblemResult]] = defaultdict(list)
    for question, result in zip(questions, results, strict=True):
        members[question].append(result)
    return {question: _together(rows) for question, rows in members.items()}


def _together(rows: Sequence[ProblemResult]) -> ProblemResult:
    verdicts = [all_right(verdicts) for verdicts in zip(*(row.verdicts for row in rows), strict=True)]
    answers = [PASSES.join(texts) if all(texts) else "" for texts in zip(*(row.answers for row in rows), strict=True)]
    return ProblemResult(verdicts, answers)


def question_scores(
    grouping: str,
    planned: int,
    final: Mapping[str, ProblemResult],
    rules: Mapping[str, ProblemResult],
    samples: int,
) -> JsonObject:
    """The score of questions, with who decided them, in the place of that of rows.

    Args:
        grouping: how rows form questions; the name of the metric.
        planned: number of questions of the whole set.
        final, rules: question -> final result, and result by rules alone.
    """
    score, alone = accuracy(final.values(), samples), accuracy(rules.values(), samples)
    return {
        **score,
        **over_samples(list(final.values()), samples),
        "metric": f"{grouping}, avg@{samples}" if samples > 1 else grouping,
        "problems": len(final),
        "problems_planned": planned,
        "answers_scored": len(final) * samples,
        "headline": has_number(score),
        "judged": alone["undecided"] - score["undecided"],  # a judge decides only what rules leave open
        "rules_only": {key: alone[key] for key in ("accuracy", "ci95", "coverage", "lower", "upper")},
    }


def row_scores(
    problems: Sequence["VlmProblem"], results: Sequence[ProblemResult], grouping: str, samples: int
) -> dict[str, JsonObject]:
    """Name -> score of single rows: of circular sets `vanilla`, the unshifted pass, and `all passes`."""
    pairs = list(zip(problems, results, strict=True))
    everything = accuracy(results, samples)
    everything |= {"accuracy": _share(results), "ci95": list(_row_interval(pairs, samples)), "n": len(results)}
    if grouping != "circular":
        return {"all rows": everything}
    first = [result for problem, result in pairs if problem.id == problem.question_id]
    return {"vanilla": accuracy(first, samples) | {"n": len(first)}, "all passes": everything}


def _share(results: Iterable[ProblemResult]) -> float | None:
    """Share of right answers among the decided ones, as VLMEvalKit's mean over rows."""
    results = list(results)
    decided = sum(result.decided for result in results)
    return sum(result.right for result in results) / decided if decided else None


def _row_interval(pairs: Sequence[tuple["VlmProblem", ProblemResult]], samples: int) -> tuple[float, float]:
    """95 % interval of the share over rows, each question being one cluster.

    Questions may have different numbers of rows, so the share p is a ratio of sums. Its linearisation gives a question
    with r right of d decided answers the value p + (r - p d) / mean(d): their mean is p, their spread that of p
    (Cochran 1977, section 6.3).
    """
    right: dict[str, int] = defaultdict(int)
    decided: dict[str, int] = defaultdict(int)
    rows: dict[str, int] = defaultdict(int)
    for problem, result in pairs:
        right[problem.question_id] += result.right
        decided[problem.question_id] += result.decided
        rows[problem.question_id] += 1
    counted = [question for question in decided if decided[question]]
    if not counted:
        return 0.0, 1.0
    share = sum(right.values()) / sum(decided.values())
    size = sum(decided.values()) / len(counted)
    values = [share + (right[question] - share * decided[question]) / size for question in counted]
    return clustered_interval(values, max(rows.values()) * samples)
