"""Grade responses: extract the answer and compare it with the gold answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlfr_vlm.grading.extract import Extraction, extract
from rlfr_vlm.grading.golds import Gold, gold_list
from rlfr_vlm.grading.normalise import compact, normalise
from rlfr_vlm.grading.pool import GradingPool, shared_pool
from rlfr_vlm.grading.rules import LONE_LETTER, apply_rules, value_of_gold
from rlfr_vlm.grading.verdict import Decision, Pair, Reason, Verdict, undecided


@dataclass(frozen=True)
class Item:
    """A response, or an extracted answer, with its gold answer.

    Attributes:
        gold: the gold answer, or a list of acceptable ones.
        response: the full response, from which the answer is extracted.
        answer: an answer that is already extracted; replaces `response`.
        options: texts of the options of a multiple-choice question.
        answer_type: `option`, `text` (exact words), or None to infer it from the gold.
        entry: of a reasoning-gym task, whose own scorer then decides (see grading/gym); empty for other rows.
    """

    gold: Gold
    response: str = ""
    answer: str | None = None
    options: Sequence[str] = ()
    answer_type: str | None = None
    entry: str = ""


@dataclass(frozen=True)
class Grade:
    """The verdict on an item, with its extraction.

    Attributes:
        verdict: the outcome.
        extraction: the answer and where it was found.
        path: the rule that reached the verdict.
        reason: why the answer is undecided; empty otherwise.
        score: of a task's scorer, from 0 to 1; None where none was asked, or it gave none.
    """

    verdict: Verdict
    extraction: Extraction
    path: str = ""
    reason: str = ""
    score: float | None = None

    @property
    def extracted(self) -> str | None:
        return self.extraction.answer


def grade(
    *, gold: Gold, response: str, options: Sequence[str] = (), answer_type: str | None = None, tolerance: float = 0.0
) -> Grade:
    """Grade one response. `grade_many` is faster for several.

    >>> grade(gold="7", response=r"5 + 2 = 7, so \\boxed{7}").verdict.value
    'right'
    """
    return grade_many([Item(gold, response, None, options, answer_type)], tolerance=tolerance)[0]


def verify_answer(
    *, gold: Gold, answer: str, options: Sequence[str] = (), answer_type: str | None = None, tolerance: float = 0.0
) -> Grade:
    """Compare an extracted answer with the gold answer."""
    return grade_many([Item(gold, "", answer, options, answer_type)], tolerance=tolerance)[0]


def grade_many(items: Sequence[Item], *, tolerance: float = 0.0, pool: GradingPool | None = None) -> list[Grade]:
    """Grade items, in their order. Pairs that the rules cannot decide go to the pool in one batch.

    Args:
        items: responses or answers, each with its gold.
        tolerance: relative tolerance for numbers; 0 compares exactly.
        pool: worker processes; by default the shared pool of this process.

    Raises:
        UserError: an item has an entry, and reasoning-gym is not installed.
    """
    if entries := [item for item in items if item.entry]:
        from rlfr_vlm.grading.gym.grade import grade_entries, scoring_pool

        scored = iter(grade_entries(entries, scoring_pool(pool.settings if pool else None)))
        rest = iter(grade_many([item for item in items if not item.entry], tolerance=tolerance, pool=pool))
        return [next(scored if item.entry else rest) for item in items]
    extractions = [extract_item(item) for item in items]
    golds = [gold_list(item.gold) for item in items]
    decisions: list[list[Decision | None]] = []
    pairs: list[Pair] = []
    positions: list[tuple[int, int]] = []  # (item, gold) of each pair
    for row, (item, extraction, accepted) in enumerate(zip(items, extractions, golds, strict=True)):
        row_decisions = [_decide_by_rules(item, gold, extraction.answer, tolerance) for gold in accepted]
        decisions.append(row_decisions)
        if any(decision is not None and decision.right for decision in row_decisions):
            continue
        for column, (gold, decision) in enumerate(zip(accepted, row_decisions, strict=True)):
            if decision is None:
                assert extraction.answer is not None  # the rules decide on missing answers
                positions.append((row, column))
                pairs.append(
                    {"gold": value_of_gold(gold, item.options), "answer": extraction.answer, "tolerance": tolerance}
                )
    for (row, column), decision in zip(positions, (pool or shared_pool()).compare(pairs), strict=True):
        decisions[row][column] = decision
    return [
        Grade(best.verdict, extraction, best.path, best.reason)
        for extraction, best in zip(extractions, map(_best, decisions), strict=True)
    ]


def extract_item(item: Item) -> Extraction:
    """Return the extraction that `grade_many` uses for an item."""
    if item.answer is not None:
        return Extraction(item.answer, item.answer, item.answer, "given", "none")
    if item.entry:
        return extract(item.response)
    return extract(item.response, letters=bool(item.options) or _is_letter(item))


def _is_letter(item: Item) -> bool:
    if item.answer_type == "option":
        return True
    return any(LONE_LETTER.fullmatch(compact(normalise(gold[:40]))) for gold in gold_list(item.gold))


def _decide_by_rules(item: Item, gold: str, answer: str | None, tolerance: float) -> Decision | None:
    if not gold.strip():
        return undecided("gold", Reason.BAD_GOLD)
    if answer is None or not answer.strip():
        return undecided("answer", Reason.NO_ANSWER)
    decision = apply_rules(gold, answer, options=item.options, answer_type=item.answer_type, tolerance=tolerance)
    if decision is None and item.options:  # the answer is a value, not a letter: compare it with the option's text
        return apply_rules(value_of_gold(gold, item.options), answer, tolerance=tolerance)
    return decision


def _best(decisions: Sequence[Decision | None]) -> Decision:
    """Return the best decision over the acceptable golds. An answer is wrong only if it is wrong for all of them."""
    available = [decision for decision in decisions if decision is not None]
    for verdict in (Verdict.RIGHT, Verdict.UNDECIDED, Verdict.WRONG):
        for decision in available:
            if decision.verdict is verdict:
                return decision
    return undecided("", Reason.CRASH)  # pragma: no cover - every item has a gold and every gold a decision
