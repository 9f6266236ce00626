"""The one grader, for rewards and for evaluation: right, wrong or undecided. Knows nothing of torch."""

from rlfr_vlm.grading.extract import Extraction, extract, last_boxed
from rlfr_vlm.grading.grade import Grade, Item, extract_item, gold_list, grade, grade_many, verify_answer
from rlfr_vlm.grading.pool import GradingPool, PoolSettings, shared_pool
from rlfr_vlm.grading.unreadable_golds import unreadable_golds
from rlfr_vlm.grading.verdict import Reason, Verdict
from rlfr_vlm.grading.version import grader_version

__all__ = [
    "Extraction",
    "Grade",
    "GradingPool",
    "Item",
    "PoolSettings",
    "Reason",
    "Verdict",
    "extract",
    "extract_item",
    "gold_list",
    "grade",
    "grade_many",
    "grader_version",
    "last_boxed",
    "shared_pool",
    "unreadable_golds",
    "verify_answer",
]  # fmt: skip
