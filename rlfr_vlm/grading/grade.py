"""Grade responses: extract the answer, verify it against the gold answer, three verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlfr_vlm.grading.extract import Extraction, extract
from rlfr_vlm.grading.normalise import compact, fold
from rlfr_vlm.grading.pool import GradingPool, shared_pool
from rlfr_vlm.grading.rules import LONE_LETTER, apply_rules, value_of_gold
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, undecided

Gold = str | int | float | None | Sequence[Any]


@dataclass(frozen=True)
class Item:
    """One thing to grade.

    Attributes:
        gold: the gold answer, or a list of acceptable ones.
        response: the whole response; its final answer is extracted.
        answer: an answer that is extracted already, instead of a response.
        options: texts of the options of a multiple-choice question.
        answer_type: `option`, `text` (exact words), or None to tell from the gold.
    """

    gold: Gold
    response: str = ""
    answer: str | None = None
    options: Sequence[str] = ()
    answer_type: str | None = None


@dataclass(frozen=True)
class Grade:
    """A verdict, what it is about, which rule reached it, and why when it is undecided."""

    verdict: Verdict
    extraction: Extraction
    path: str = ""
    reason: str = ""

    @property
    def extracted(self) -> str | None:
        return self.extraction.answer


def grade(
    *, gold: Gold, response: str, options: Sequence[str] = (), answer_type: str | None = None, tolerance: float = 0.0
) -> Grade:
    """Grade one response. See `grade_many`, which is faster for many.

    >>> grade(gold="7", response=r"5 + 2 = 7, so \\boxed{7}").verdict.value
    'right'
    """
    return grade_many([Item(gold, response, None, options, answer_type)], tolerance=tolerance)[0]


def verify_answer(
    *, gold: Gold, answer: str, options: Sequence[str] = (), answer_type: str | None = None, tolerance: float = 0.0
) -> Grade:
    """Compare an answer, already extracted, with the gold answer."""
    return grade_many([Item(gold, "", answer, options, answer_type)], tolerance=tolerance)[0]


def grade_many(items: Sequence[Item], *, tolerance: float = 0.0, pool: GradingPool | None = None) -> list[Grade]:
    """Grade items in their order. What rules cannot decide goes to the pool's worker processes, all at once.

    Args:
        items: responses or answers, each with its gold.
        tolerance: relative, for numbers; 0 compares exactly.
        pool: worker processes; this process's own by default.
    """
    extractions = [extract_item(item) for item in items]
    golds = [gold_list(item.gold) for item in items]
    decisions: list[list[Decision | None]] = []
    requests: list[dict[str, Any]] = []
    places: list[tuple[int, int]] = []
    for row, (item, extraction, accepted) in enumerate(zip(items, extractions, golds, strict=True)):
        found = [_rules(item, gold, extraction.answer, tolerance) for gold in accepted]
        decisions.append(found)
        if any(decision is not None and decision.right for decision in found):
            continue
        for place, (gold, decision) in enumerate(zip(accepted, found, strict=True)):
            if decision is None:
                places.append((row, place))
                requests.append(
                    {"gold": value_of_gold(gold, item.options), "answer": extraction.answer, "tolerance": tolerance}
                )
    for (row, place), decision in zip(places, (pool or shared_pool()).compare(requests), strict=True):
        decisions[row][place] = decision
    return [
        Grade(best.verdict, extraction, best.path, best.reason)
        for extraction, best in zip(extractions, map(_best, decisions), strict=True)
    ]


def gold_list(gold: Gold) -> list[str]:
    """Acceptable golds as text. A number from a table, such as 142.0, stands for the integer it is."""
    if isinstance(gold, str):
        return [gold]
    if gold is None:
        return [""]
    if isinstance(gold, bool):
        return ["yes" if gold else "no"]
    if isinstance(gold, int | float):
        return [str(int(gold)) if gold == gold and abs(gold) < 1e15 and gold == int(gold) else repr(gold)]
    return [text for part in gold for text in gold_list(part)] or [""]


def extract_item(item: Item) -> Extraction:
    """The final answer of an item, as `grade_many` finds it."""
    if item.answer is not None:
        return Extraction(item.answer, item.answer, item.answer, "given", "none")
    return extract(item.response, letters=bool(item.options) or _is_letter(item))


def _is_letter(item: Item) -> bool:
    if item.answer_type == "option":
        return True
    return any(LONE_LETTER.fullmatch(compact(fold(gold[:40]))) for gold in gold_list(item.gold))


def _rules(item: Item, gold: str, answer: str | None, tolerance: float) -> Decision | None:
    if not gold.strip():
        return undecided("gold", Reason.BAD_GOLD)
    if answer is None or not answer.strip():
        return undecided("answer", Reason.NO_ANSWER)
    decision = apply_rules(gold, answer, options=item.options, answer_type=item.answer_type, tolerance=tolerance)
    if decision is None and item.options:  # no letter but a value: compare it with the option's own
        return apply_rules(value_of_gold(gold, item.options), answer, tolerance=tolerance)
    return decision


def _best(decisions: Sequence[Decision | None]) -> Decision:
    """Any acceptable gold suffices; an answer is wrong only when it is wrong for all of them."""
    known = [decision for decision in decisions if decision is not None]
    for verdict in (Verdict.RIGHT, Verdict.UNDECIDED, Verdict.WRONG):
        for decision in known:
            if decision.verdict is verdict:
                return decision
    return undecided("", Reason.CRASH)  # pragma: no cover - every row has a gold and every gold a decision
