"""Grade responses to reasoning-gym tasks with the scorers of the tasks, in the processes of a pool."""

from collections.abc import Sequence

from rlfr_vlm.grading.grade import Grade, Item, extract_item
from rlfr_vlm.grading.gym.names import check_installed
from rlfr_vlm.grading.pool import GradingPool, PoolSettings, shared_pool
from rlfr_vlm.grading.verdict import Decision, Pair, Reason, undecided

PATH = "reasoning_gym"
SERVER = "rlfr_vlm.grading.gym.worker"


def scoring_pool(settings: PoolSettings | None = None) -> GradingPool:
    """Return the pool of scoring processes with these settings.

    Raises:
        UserError: reasoning-gym is not installed.
    """
    check_installed("Scoring answers to a reasoning_gym task")
    return shared_pool(settings, SERVER)


def grade_entries(items: Sequence[Item], pool: GradingPool) -> list[Grade]:
    """Grade items that have an entry, in their order. A response without an answer is not scored.

    Raises:
        UserError: reasoning-gym is not installed.
    """
    extractions = [extract_item(item) for item in items]
    decisions: list[Decision] = [undecided(PATH, Reason.NO_ANSWER)] * len(items)
    answered = [index for index, found in enumerate(extractions) if found.answer is not None and found.answer.strip()]
    pairs: list[Pair] = [
        {"gold": "", "answer": extractions[index].answer or "", "entry": items[index].entry} for index in answered
    ]
    for index, decision in zip(answered, pool.compare(pairs), strict=True):
        decisions[index] = decision
    return [
        Grade(decision.verdict, extraction, PATH, decision.reason, decision.score)
        for extraction, decision in zip(extractions, decisions, strict=True)
    ]
