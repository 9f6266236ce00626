"""Gold answers: the texts that a gold stands for, and which golds the grader cannot read."""

from collections.abc import Sequence
from typing import TypeAlias

from rlfr_vlm.grading.letters import option_letter
from rlfr_vlm.grading.normalise import normalise
from rlfr_vlm.grading.numbers import read_quantity
from rlfr_vlm.grading.pool import GradingPool, shared_pool
from rlfr_vlm.grading.rules import apply_rules
from rlfr_vlm.grading.verdict import Reason, Verdict
from rlfr_vlm.grading.words import is_words

Gold: TypeAlias = str | int | float | Sequence["Gold"] | None

PROBE = r"\frac{q_{7}}{r_{9}}+0.5"  # equals no gold, so that the grader must parse the gold to reach a verdict
UNREADABLE = (Reason.BAD_GOLD, Reason.TIME_OUT, Reason.CRASH, Reason.TOO_LONG, Reason.TOO_LARGE)


def gold_list(gold: Gold) -> list[str]:
    """Return the acceptable golds as text. A whole float, such as 142.0 from a table, becomes an integer."""
    if isinstance(gold, str):
        return [gold]
    if gold is None:
        return [""]
    if isinstance(gold, bool):
        return ["yes" if gold else "no"]
    if isinstance(gold, int | float):
        return [str(int(gold)) if gold == gold and abs(gold) < 1e15 and gold == int(gold) else repr(gold)]
    return [text for part in gold for text in gold_list(part)] or [""]


def unreadable_golds(golds: Sequence[str], pool: GradingPool | None = None) -> dict[str, str]:
    """Return the golds that the grader cannot compare with any answer, each with the reason.

    >>> unreadable_golds(["7", "12 cm", "B", "no solution", "???"])
    {'???': 'unreadable gold'}
    """
    unreadable: dict[str, str] = {}
    pending = []
    for gold in dict.fromkeys(golds):
        decision = apply_rules(gold, PROBE)
        if decision is not None and decision.reason in UNREADABLE:
            unreadable[gold] = decision.reason
        elif decision is None and not _readable_without_algebra(gold):
            pending.append(gold)
    pool = pool or shared_pool()
    decisions = dict(zip(pending, pool.compare([{"gold": gold, "answer": PROBE} for gold in pending]), strict=True))
    for gold, decision in decisions.items():
        if decision.verdict is Verdict.UNDECIDED and decision.reason in UNREADABLE:
            unreadable[gold] = decision.reason
    return unreadable


def _readable_without_algebra(gold: str) -> bool:
    normalised = normalise(gold)
    return read_quantity(normalised) is not None or option_letter(gold) is not None or is_words(normalised)
