"""Agreement of two judges on the same answers: Cohen's kappa, and the answers on which they differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from rlfr_eval.run.folder import RunStore
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Verdict


@dataclass(frozen=True)
class Agreement:
    """Agreement of two judges.

    Attributes:
        both: number of answers that both decided.
        kappa: Cohen's kappa, agreement beyond chance; None where chance alone agrees always.
        flipped: ids of answers that the first calls right and the second wrong, and the reverse.
        one_undecided: number of answers that only one of them decided.
    """

    first: str
    second: str
    both: int
    agreed: int
    kappa: float | None
    flipped: tuple[tuple[str, ...], tuple[str, ...]]
    one_undecided: int

    def line(self) -> str:
        kappa = "not defined" if self.kappa is None else f"{self.kappa:.3f}"
        lost, won = map(len, self.flipped)
        return (
            f"{self.first} and {self.second}: agree on {self.agreed} of {self.both} answers, kappa {kappa}; "
            f"{lost} right for the first only, {won} for the second only; {self.one_undecided} decided by one of them"
        )


def agreements(store: RunStore) -> list[Agreement]:
    """Compare every two judges of this run; the latest verdict of each on an answer counts.

    Where judges were shown different extractions of an answer, the extraction that was judged last counts.
    """
    samples = {sample.id: sample for sample in store.answers()}
    verdicts = [
        (line, line.extracted if line.has_extraction else samples[line.id].extracted)
        for line in store.judge_verdicts()
        if line.id in samples and line.answer == samples[line.id].digest
    ]
    latest = {line.id: extracted for line, extracted in verdicts}
    by_judge: dict[str, dict[str, Verdict]] = {}
    for line, extracted in verdicts:
        if extracted == latest[line.id]:
            judged = by_judge.setdefault(line.judge, {})
            if line.verdict is not Verdict.UNDECIDED or line.id not in judged:
                judged[line.id] = line.verdict
    return [agreement(a, by_judge[a], b, by_judge[b]) for a, b in combinations(by_judge, 2)]


def agreement(first: str, a: Mapping[str, Verdict], second: str, b: Mapping[str, Verdict]) -> Agreement:
    """Compare two judges' verdicts by answer."""
    shared = [answer for answer in a if answer in b]
    both = [answer for answer in shared if Verdict.UNDECIDED not in (a[answer], b[answer])]
    agreed = sum(a[answer] is b[answer] for answer in both)
    lost = tuple(answer for answer in both if a[answer] is Verdict.RIGHT and b[answer] is Verdict.WRONG)
    won = tuple(answer for answer in both if a[answer] is Verdict.WRONG and b[answer] is Verdict.RIGHT)
    undecided = sum((a[answer] is Verdict.UNDECIDED) != (b[answer] is Verdict.UNDECIDED) for answer in shared)
    kappa = cohens_kappa([(a[answer] is Verdict.RIGHT, b[answer] is Verdict.RIGHT) for answer in both])
    return Agreement(first, second, len(both), agreed, kappa, (lost, won), undecided)


def cohens_kappa(pairs: Iterable[tuple[bool, bool]]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960); None where chance alone agrees always, or nothing is rated.

    >>> cohens_kappa([(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15)
    0.4
    """
    rated = list(pairs)
    if not rated:
        return None
    count = len(rated)
    observed = sum(a == b for a, b in rated) / count
    first, second = (sum(pair[side] for pair in rated) / count for side in (0, 1))
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1.0 else round((observed - chance) / (1 - chance), 12)


def report(results: Iterable[Agreement]) -> dict[str, JsonObject]:
    """As JSON."""
    return {f"{result.first} / {result.second}": vars(result) for result in results}
