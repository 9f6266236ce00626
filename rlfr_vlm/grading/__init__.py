"""The one grader, for rewards and for evaluation. Knows nothing of torch."""

from rlfr_vlm.grading.extract import last_boxed
from rlfr_vlm.grading.verify import Grade, Verdict, grade

__all__ = ["Grade", "Verdict", "grade", "last_boxed"]
