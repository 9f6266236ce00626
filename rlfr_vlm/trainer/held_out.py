"""Accuracy on held-out rows during training, greedy and sampled, with Wilson intervals.

The trainer supplies generation and grading, so that held-out rows get the run's own prompts, engine and grader. With
rollout hf, sampling is seeded and the run's random state is restored: a run with evaluations trains exactly as one
without. vLLM's random state advances.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from rlfr_vlm.data.rows import Row
from rlfr_vlm.stats import wilson_interval

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

GradeRows: TypeAlias = Callable[[Sequence[Row]], Tensor]
MODES = ("greedy", "sampled")


@dataclass
class VerdictCounts:
    """Numbers of right, wrong and undecided responses."""

    right: int = 0
    wrong: int = 0
    undecided: int = 0

    @property
    def accuracy(self) -> float:
        """Share of right responses among decided ones; NaN if none is decided."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else math.nan

    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy; NaN if none is decided."""
        decided = self.right + self.wrong
        return wilson_interval(self.right, decided) if decided else (math.nan, math.nan)


def evaluate_held_out(
    dataset: "Dataset",
    grade_rows: GradeRows,
    decoding: Callable[[bool], AbstractContextManager[None]],
    *,
    accelerator: "Accelerator",
    batch_size: int,
    threshold: float,
    prefix: str = "eval",
) -> dict[str, float]:
    """Accuracy over all ranks.

    Args:
        dataset: rows as the trainer takes them.
        grade_rows: generates one response to each row of this rank; returns the outcomes of all ranks in their order,
            NaN where undecided.
        decoding: context in which responses are decoded greedily (True) or sampled (False).
        accelerator: gives rank and number of ranks.
        batch_size: rows of one call of `grade_rows`.
        threshold: a response is right above it.
        prefix: of the metrics' names.

    Returns:
        For each mode `<prefix>_<mode>` (accuracy among decided answers), `_low` and `_high` of its interval and
        `_undecided` (share); `<prefix>_rows`.
    """
    metrics: dict[str, float] = {f"{prefix}_rows": float(len(dataset))}
    for mode in MODES:
        with decoding(mode == "greedy"):
            counts = _count_verdicts(dataset, grade_rows, accelerator, batch_size, threshold)
        low, high = counts.interval()
        metrics |= {
            f"{prefix}_{mode}": counts.accuracy,
            f"{prefix}_{mode}_low": low,
            f"{prefix}_{mode}_high": high,
            f"{prefix}_{mode}_undecided": counts.undecided / max(len(dataset), 1),
        }
    return metrics


def describe_evaluation(metrics: Mapping[str, float], prefix: str = "eval") -> str:
    """Held-out accuracy in one line; undecided answers are counted apart."""
    parts, any_undecided = [], False
    for mode in MODES:
        value, low, high, undecided = (metrics[f"{prefix}_{mode}{end}"] for end in ("", "_low", "_high", "_undecided"))
        text = "nothing decided" if math.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        parts.append(f"{mode} {text}" + (f", {undecided:.1%} undecided" if undecided else ""))
        any_undecided |= undecided > 0
    parts += [] if any_undecided else ["none undecided"]
    return f"held-out accuracy (n = {metrics[f'{prefix}_rows']:.0f}): {'; '.join(parts)}"


def _count_verdicts(
    dataset: "Dataset",
    grade_rows: GradeRows,
    accelerator: "Accelerator",
    batch_size: int,
    threshold: float,
) -> VerdictCounts:
    """Verdicts of one response to each row.

    All ranks generate equally often; where a rank runs out of rows it repeats the last row, which does not count.
    """
    ranks, size = accelerator.num_processes, len(dataset)
    share = math.ceil(size / ranks)
    start = accelerator.process_index * share
    counts = VerdictCounts()
    for first in range(0, share, batch_size):
        offsets = range(first, min(first + batch_size, share))
        rows = dataset.__getitems__([min(start + offset, size - 1) for offset in offsets])
        outcome = grade_rows(rows)
        is_row = [rank * share + offset < size for rank in range(ranks) for offset in offsets]
        is_counted = torch.tensor(is_row, device=outcome.device)
        is_decided = is_counted & ~outcome.isnan()
        counts.right += int((is_decided & (outcome > threshold)).sum())
        counts.wrong += int((is_decided & (outcome <= threshold)).sum())
        counts.undecided += int((is_counted & outcome.isnan()).sum())
    return counts
