"""Find gold answers that the grader cannot read, before anything is graded against them."""

from collections.abc import Sequence

from rlfr_vlm.grading.letters import option_letter
from rlfr_vlm.grading.normalise import fold
from rlfr_vlm.grading.numbers import read_quantity
from rlfr_vlm.grading.pool import GradingPool, shared_pool
from rlfr_vlm.grading.rules import apply_rules, is_words
from rlfr_vlm.grading.verdict import Reason, Verdict

PROBE = r"\frac{q_{7}}{r_{9}}+0.5"  # an answer that equals no gold, so that gold must be read to tell
BAD = (Reason.BAD_GOLD, Reason.TIME_OUT, Reason.CRASH, Reason.TOO_LONG)


def unreadable_golds(golds: Sequence[str], pool: GradingPool | None = None) -> dict[str, str]:
    """The golds that no answer can be compared with, each with the reason.

    >>> unreadable_golds(["7", "12 cm", "B", "no solution", "???"])
    {'???': 'unreadable gold'}
    """
    found: dict[str, str] = {}
    asked = []
    for gold in dict.fromkeys(golds):
        decision = apply_rules(gold, PROBE)
        if decision is not None and decision.reason in BAD:
            found[gold] = decision.reason
        elif decision is None and not _plainly_readable(gold):
            asked.append(gold)
    pool = pool or shared_pool()
    decisions = dict(zip(asked, pool.compare([{"gold": gold, "answer": PROBE} for gold in asked]), strict=True))
    again = [gold for gold, decision in decisions.items() if decision.reason == Reason.TIME_OUT]  # of a busy machine?
    decisions |= dict(zip(again, pool.compare([{"gold": gold, "answer": PROBE} for gold in again]), strict=True))
    for gold, decision in decisions.items():
        if decision.verdict is Verdict.UNDECIDED and decision.reason in BAD:
            found[gold] = decision.reason
    return found


def _plainly_readable(gold: str) -> bool:
    folded = fold(gold)
    return read_quantity(folded) is not None or option_letter(gold) is not None or is_words(folded)
