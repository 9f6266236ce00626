"""How far two judges agree on the same answers: Cohen's kappa, and the answers on which they differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rlfr_eval.run.folder import RunStore
from rlfr_vlm.grading import Verdict


@dataclass(frozen=True)
class Agreement:
    """Two judges on the answers that both decided.

    Attributes:
        both: answers that both decided.
        kappa: Cohen's, agreement beyond chance; None where chance alone agrees always.
        flipped: ids of answers that the first calls right and the second wrong, and the other way round.
        one_undecided: answers that one of them decided and the other did not.
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
    """Of every two judges that were asked about this run; the latest verdict of each on an answer counts."""
    digests = {row["id"]: row["digest"] for row in store.answers()}
    said: dict[str, dict[str, Verdict]] = {}
    for row in store.verdicts:
        if row.get("by") == "judge" and digests.get(row.get("id", "")) == row.get("answer"):
            verdict = Verdict(row["verdict"])
            mine = said.setdefault(row["judge"], {})
            if verdict is not Verdict.UNDECIDED or row["id"] not in mine:
                mine[row["id"]] = verdict
    return [agreement(a, said[a], b, said[b]) for a, b in combinations(said, 2)]


def agreement(first: str, a: Mapping[str, Verdict], second: str, b: Mapping[str, Verdict]) -> Agreement:
    """Compare two judges' verdicts by answer."""
    shared = [name for name in a if name in b]
    both = [name for name in shared if Verdict.UNDECIDED not in (a[name], b[name])]
    agreed = sum(a[name] is b[name] for name in both)
    lost = tuple(name for name in both if a[name] is Verdict.RIGHT and b[name] is Verdict.WRONG)
    won = tuple(name for name in both if a[name] is Verdict.WRONG and b[name] is Verdict.RIGHT)
    undecided = sum((a[name] is Verdict.UNDECIDED) != (b[name] is Verdict.UNDECIDED) for name in shared)
    kappa = cohens_kappa([(a[name] is Verdict.RIGHT, b[name] is Verdict.RIGHT) for name in both])
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


def report(found: Iterable[Agreement]) -> dict[str, Any]:
    """As JSON."""
    return {f"{one.first} / {one.second}": vars(one) for one in found}
