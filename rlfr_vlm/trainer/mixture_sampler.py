"""Draws the prompts of a mixture in place of TRL's shuffled order, and counts outcomes by source.

The order continues over epochs: every row of a source is drawn before one of them is drawn again.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from trl.trainer.utils import RepeatSampler

from rlfr_vlm.data.mixture import SOURCE_COLUMN
from rlfr_vlm.data.rows import Row

if TYPE_CHECKING:
    from datasets import Dataset

    from rlfr_vlm.data.draws import Draws


class MixtureSampler(RepeatSampler):
    """TRL's sampler with another order of prompts; how they are repeated is inherited.

    Args:
        sampler: TRL's, for a data set of `size` rows; its order is not used.
        draws: the order of the mixture.
    """

    def __init__(self, sampler: RepeatSampler, dataset: "Dataset", draws: "Draws") -> None:
        super().__init__(dataset, sampler.mini_repeat_count, sampler.batch_size, sampler.repeat_count, shuffle=False)
        self.draws = draws
        self.prompts = self.num_samples // self.batch_size * self.batch_size  # of an epoch

    def __iter__(self) -> Iterator[int]:
        places = self.draws.take(self.prompts)
        for place in super().__iter__():  # 0, 1, ..., prompts - 1, repeated
            yield places[place]

    def skip_epochs(self, epochs: int) -> None:
        """Go to the first prompt after some epochs."""
        self.draws.position = epochs * self.prompts


def source_numbers(rows: Sequence[Row], labels: Sequence[str]) -> Tensor:
    """(B,) index of the source of each row."""
    return torch.tensor([labels.index(row[SOURCE_COLUMN]) for row in rows])


def source_metrics(outcome: Tensor, sources: Tensor, labels: Sequence[str]) -> dict[str, float]:
    """Mean outcome, undecided share and number of responses of each source.

    Args:
        outcome: (B,) of all ranks, NaN where undecided.
        sources: (B,) index of each response's source.
        labels: of the sources.

    Returns:
        Metrics with names under `source/`. A source without responses has rows alone; one without decided responses
        has no mean.
    """
    metrics = {}
    for number, label in enumerate(labels):
        own = outcome[sources == number]
        decided = own[~own.isnan()]
        metrics[f"source/{label}/rows"] = float(len(own))
        if len(own):
            metrics[f"source/{label}/undecided"] = own.isnan().float().mean().item()
        if len(decided):
            metrics[f"source/{label}/outcome"] = decided.mean().item()
    return metrics
