"""The grader shared by rewards and evaluation. It returns right, wrong or undecided, and does not import torch."""

from rlfr_vlm.grading.extract import Extraction, extract, last_boxed
from rlfr_vlm.grading.golds import Gold, gold_list, unreadable_golds
from rlfr_vlm.grading.grade import Grade, Item, extract_item, grade, grade_many, verify_answer
from rlfr_vlm.grading.pool import GradingPool, PoolSettings, shared_pool
from rlfr_vlm.grading.verdict import Reason, Verdict
from rlfr_vlm.grading.version import grader_version

__all__ = [
    "Extraction",
    "Gold",
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
]
