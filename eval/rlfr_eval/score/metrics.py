"""Scores of one benchmark: accuracy over decided answers, intervals, coverage and bounds, pass@k, maj@k."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlfr_eval.schema import Sample
from rlfr_eval.score.verdicts import Standing
from rlfr_vlm.files import JsonMapping, JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.stats import clustered_error, clustered_interval, pass_at_k

HEADLINE_UNDECIDED = 0.01  # share of undecided answers above which a benchmark gets no single number


@dataclass
class ProblemResult:
    """Verdicts on the samples of one problem, in the order of the samples. Missing answers are undecided.

    Attributes:
        points: sample -> share of full marks, where a wrong answer has some.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    points: dict[int, float] = field(default_factory=dict)

    @property
    def right(self) -> int:
        return self.verdicts.count(Verdict.RIGHT)

    @property
    def decided(self) -> int:
        return len(self.verdicts) - self.verdicts.count(Verdict.UNDECIDED)

    @property
    def total(self) -> float:
        """Number of right answers, and the points of wrong ones."""
        return self.right + sum(self.points.values())

    @property
    def mean(self) -> float | None:
        """Share of right answers among the decided ones; with points, the mean of full marks."""
        return self.total / self.decided if self.decided else None


def majority(result: ProblemResult) -> float | None:
    """1 when the most frequent answer is right, 0 when not; the mean over answers that tie. Equal text is one answer.

    >>> majority(ProblemResult([Verdict.RIGHT, Verdict.WRONG, Verdict.RIGHT], ["7", "8", "7"]))
    1.0
    """
    groups: dict[str, list[Verdict]] = {}
    for answer, verdict in zip(result.answers, result.verdicts, strict=True):
        if answer:
            groups.setdefault(" ".join(answer.split()), []).append(verdict)
    if not groups:
        return 0.0 if result.decided else None
    largest = max(map(len, groups.values()))
    scores = [_score(group) for group in groups.values() if len(group) == largest]
    decided = [score for score in scores if score is not None]
    return sum(decided) / len(decided) if len(decided) == len(scores) else None


def _score(group: Sequence[Verdict]) -> float | None:
    decided = [verdict for verdict in group if verdict is not Verdict.UNDECIDED]
    return float(decided.count(Verdict.RIGHT) * 2 >= len(decided)) if decided else None


def accuracy(results: Iterable[ProblemResult], samples: int) -> JsonObject:
    """avg@k over decided answers with its error, coverage and bounds. Shares, not percent."""
    results = list(results)
    planned = len(results) * samples
    right = sum(result.right for result in results)
    total = sum(result.total for result in results)
    decided = sum(result.decided for result in results)
    means = [result.mean for result in results if result.mean is not None]
    low, high = clustered_interval(means, samples)
    return {
        "accuracy": sum(means) / len(means) if means else None,
        "ci95": [low, high],
        "standard_error": clustered_error(means),
        "right": right,
        "wrong": decided - right,
        "undecided": planned - decided,
        "coverage": decided / planned if planned else 0.0,
        "lower": total / planned if planned else 0.0,
        "upper": (total + planned - decided) / planned if planned else 1.0,
    }


def has_number(score: JsonMapping) -> bool:
    """Whether so few answers are undecided that one number may stand for a benchmark; `score` is from `accuracy`."""
    planned = score["right"] + score["wrong"] + score["undecided"]
    return planned > 0 and score["undecided"] / planned <= HEADLINE_UNDECIDED


def over_samples(results: Sequence[ProblemResult], samples: int) -> JsonObject:
    """pass@k for powers of two up to the number of samples, and maj@k.

    Problems with fewer than k decided samples, or an undecided majority, are left out, and counted.
    """
    scores: JsonObject = {}
    sizes = sorted({min(2**i, samples) for i in range(1, samples.bit_length() + 1)} - {1})
    for k in sizes:
        enough = [result for result in results if result.decided >= k]
        values = [pass_at_k(result.decided, result.right, k) for result in enough]
        scores[f"pass@{k}"] = sum(values) / len(values) if values else None
        if len(enough) < len(results):
            scores[f"pass@{k}_problems_left_out"] = len(results) - len(enough)
    if samples > 1:
        votes = [vote for vote in map(majority, results) if vote is not None]
        scores[f"maj@{samples}"] = sum(votes) / len(votes) if votes else None
        if len(votes) < len(results):
            scores[f"maj@{samples}_problems_left_out"] = len(results) - len(votes)
    return scores


def collect(
    problem_ids: Sequence[str], samples: int, answers: Iterable[Sample], standing: Mapping[str, Standing]
) -> tuple[list[ProblemResult], list[ProblemResult]]:
    """Results by problem: final ones, and by rules alone. An answer that is missing is undecided in both."""
    final = {name: ProblemResult([Verdict.UNDECIDED] * samples, [""] * samples) for name in problem_ids}
    rules = {name: ProblemResult([Verdict.UNDECIDED] * samples, [""] * samples) for name in problem_ids}
    for sample in answers:
        place = standing.get(sample.id)
        if sample.problem in final and sample.sample < samples and place is not None:
            extracted = place.apply(sample).extracted or ""
            for results, verdict in ((final, place.final), (rules, place.rules)):
                results[sample.problem].verdicts[sample.sample] = verdict
                results[sample.problem].answers[sample.sample] = extracted
            if place.points is not None:
                for results in (final,) if place.judged else (final, rules):
                    results[sample.problem].points[sample.sample] = place.points
    return list(final.values()), list(rules.values())
