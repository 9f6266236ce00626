"""Tasks of the package reasoning-gym: their rows, and their own scorers as a part of the grader.

A task is named like a data set: `reasoning_gym:chain_sum?min_terms=2&max_terms=3&size=2000`. This module imports
neither the library nor anything else that is slow: rows are generated in a process of their own (`rows.py`), and
answers are scored in the worker processes of a pool (`worker.py`).
"""

from rlfr_vlm.grading.gym.names import PREFIX, GymName, check_installed, is_gym_name, parse_name
from rlfr_vlm.grading.gym.rows import MAX_ROWS, SPLITS, generate

# Column of the rows that holds the entry of a task, from which its scorer decides.
ENTRY_COLUMN = "reasoning_gym"

__all__ = [
    "ENTRY_COLUMN",
    "MAX_ROWS",
    "PREFIX",
    "SPLITS",
    "GymName",
    "check_installed",
    "generate",
    "is_gym_name",
    "parse_name",
]
