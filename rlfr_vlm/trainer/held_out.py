"""Accuracy on held-out rows during training, greedy and sampled, with Wilson intervals.

The trainer supplies generation and grading, so that held-out rows get the run's own prompts, engine and grader. With
rollout hf, sampling is seeded and the run's random state is restored: a run with evaluations trains exactly as one
without. vLLM's random state advances.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from rlfr_vlm.data.mixture import labels_of
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

    def add(self, kind: str) -> None:
        """Count a response that is `right`, `wrong` or `undecided`."""
        setattr(self, kind, getattr(self, kind) + 1)

    @staticmethod
    def total(parts: Iterable["VerdictCounts"]) -> "VerdictCounts":
        """Return the sums of several counts."""
        sums = [(part.right, part.wrong, part.undecided) for part in parts]
        return VerdictCounts(*(sum(column) for column in zip(*sums, strict=True)))

    @property
    def rows(self) -> int:
        """Number of responses."""
        return self.right + self.wrong + self.undecided

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
        `_undecided` (share); `<prefix>_rows`. Of a mixture also `<prefix>_source/<source>/` with `rows`, `<mode>` and
        `<mode>_undecided`.
    """
    metrics: dict[str, float] = {f"{prefix}_rows": float(len(dataset))}
    labels = labels_of(dataset)
    for mode in MODES:
        with decoding(mode == "greedy"):
            by_source = _count_verdicts(dataset, grade_rows, accelerator, batch_size, threshold, labels)
        counts = VerdictCounts.total(by_source.values())
        low, high = counts.interval()
        metrics |= {
            f"{prefix}_{mode}": counts.accuracy,
            f"{prefix}_{mode}_low": low,
            f"{prefix}_{mode}_high": high,
            f"{prefix}_{mode}_undecided": counts.undecided / max(len(dataset), 1),
        }
        for label, own in by_source.items() if labels is not None else ():
            name = f"{prefix}_source/{label}"
            metrics |= {
                f"{name}/rows": float(own.rows),
                f"{name}/{mode}": own.accuracy,
                f"{name}/{mode}_undecided": own.undecided / own.rows,
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
    start, end = f"{prefix}_source/", "/greedy"
    of_sources = [
        f"{name[len(start) : -len(end)]} {value:.3f} (n = {metrics[name[: -len(end)] + '/rows']:.0f})"
        for name, value in metrics.items()
        if name.startswith(start) and name.endswith(end)
    ]
    parts += [f"greedy by source: {', '.join(of_sources)}"] if of_sources else []
    return f"held-out accuracy (n = {metrics[f'{prefix}_rows']:.0f}): {'; '.join(parts)}"


def _count_verdicts(
    dataset: "Dataset",
    grade_rows: GradeRows,
    accelerator: "Accelerator",
    batch_size: int,
    threshold: float,
    labels: Sequence[str] | None,
) -> dict[str, VerdictCounts]:
    """Verdicts of one response to each row, by the source of the row; all under "" without `labels`.

    All ranks generate equally often; where a rank runs out of rows it repeats the last row, which does not count.
    """
    ranks, size = accelerator.num_processes, len(dataset)
    share = math.ceil(size / ranks)
    start = accelerator.process_index * share
    sources = [""] * size if labels is None else labels
    counts = {source: VerdictCounts() for source in sources}
    for first in range(0, share, batch_size):
        offsets = range(first, min(first + batch_size, share))
        rows = dataset.__getitems__([min(start + offset, size - 1) for offset in offsets])
        outcome = grade_rows(rows)
        numbers = [rank * share + offset for rank in range(ranks) for offset in offsets]
        right, undecided = (outcome > threshold).tolist(), outcome.isnan().tolist()
        for place, number in enumerate(numbers):
            if number < size:
                kind = "undecided" if undecided[place] else "right" if right[place] else "wrong"
                counts[sources[number]].add(kind)
    return counts
