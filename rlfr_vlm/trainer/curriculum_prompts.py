"""Choose the prompts of each rollout by their success rates so far, in place of a shuffled order.

The rates and their weights are those of rlfr_vlm/curriculum.py.

Prompts are chosen when a rollout begins, so that all outcomes before it count; the batches of TRL's data loader, which
are read ahead, are not used. Letters: N responses of all ranks, B of this one.
"""

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import numpy as np
from torch import Tensor
from trl.trainer.utils import RepeatSampler

from rlfr_vlm.checkpoint import is_first_process
from rlfr_vlm.curriculum import SuccessRates, draw
from rlfr_vlm.data.digest import digest_of
from rlfr_vlm.data.draws import Draws, draws_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.options import CurriculumOptions
from rlfr_vlm.trainer.curriculum_start import read_start

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

    from rlfr_vlm.trainer.rlfr_config import RLFRConfig


class Curriculum:
    """Chooses prompts, and keeps what a checkpoint must have of them.

    Every rank chooses the same prompts: outcomes are those of all ranks, and the random numbers follow from the seed
    and the number of draws. In a mixture the weights of the sources decide which source comes next, and the success
    rates which of its rows. No prompt is twice in a rollout, unless the rollout has more prompts of a source than the
    source has rows.

    Args:
        options: band, floor and decay.
        dataset: of `as_dataset`.
        group_size: responses to a prompt.
        threshold: a response is right above it.
        seed: of the draws.

    Attributes:
        rates: success rates by the row's place in the data set.
        refills: the stream of new prompts for dropped groups.
    """

    def __init__(
        self, options: CurriculumOptions, dataset: "Dataset", *, group_size: int, threshold: float, seed: int
    ) -> None:
        assert options.curriculum_band is not None
        self.low, self.high = options.curriculum_band
        self.floor = options.curriculum_floor
        self.dataset, self.group_size, self.threshold, self.seed = dataset, group_size, threshold, seed
        self.rates = SuccessRates(len(dataset), options.curriculum_decay)
        self.sources = _sources_of(dataset)
        self.members = [np.asarray(rows) for rows in self.sources.members]
        self.refills = RefillPrompts(self, _sources_of(dataset))
        self.draws = 0  # so far
        self._drawn: list[int] = []  # by the last draw
        self._drawn_rates = np.zeros(0)
        self._used = np.zeros(len(dataset), dtype=bool)  # prompts of this rollout

    @classmethod
    def for_run(cls, args: "RLFRConfig", dataset: "Dataset", group_size: int) -> Optional["Curriculum"]:
        """Return the curriculum of a run, or None if it has none.

        Raises:
            UserError: `curriculum_start` cannot be used.
        """
        if args.curriculum_band is None:
            return None
        made = cls(args, dataset, group_size=group_size, threshold=args.flow_accept_threshold, seed=args.seed)
        if args.curriculum_start is not None:
            made.start_from(Path(args.curriculum_start).expanduser())
        return made

    def start_from(self, path: Path) -> None:
        """Count the responses of a file of `rlfr sample` as a first try, and say how many prompts it has.

        Raises:
            UserError: the file cannot be used.
        """
        for place, tally in read_start(path, self.dataset).items():
            self.rates.record(place, tally.right, tally.decided)
        tried, inside = self.rates.tried.sum(), self.rates.in_band(self.low, self.high).sum()
        if is_first_process():
            print(
                f"curriculum: {path} has responses to {tried} of {len(self.dataset)} prompts; the success rates of "
                f"{inside} lie in {self.low:g} to {self.high:g}"
            )

    def rows_of_rollout(self, count: int, accelerator: "Accelerator") -> list[Row]:
        """Choose the prompts of a new rollout, and read this rank's rows, one per response.

        Args:
            count: B, equal on all ranks.
        """
        self._used[:] = False
        prompts = count * accelerator.num_processes // self.group_size
        places = [place for place in self.choose(self.sources.next_sources(prompts)) for _ in range(self.group_size)]
        start = accelerator.process_index * count
        rows: list[Row] = self.dataset.__getitems__(places[start : start + count])
        return rows

    def choose(self, sources: Iterable[int]) -> list[int]:
        """Draw a row of each of these sources; returns their places in the data set."""
        of_draw = np.asarray(list(sources), dtype=np.int64)
        places, weights = np.zeros_like(of_draw), self.rates.weights(self.low, self.high, self.floor)
        generator = np.random.default_rng([self.seed % 2**63, self.draws])
        for source, rows in enumerate(self.members):
            own = of_draw == source
            places[own] = self._draw_from(rows, int(own.sum()), weights, generator)
        self.draws += 1
        self._drawn, self._drawn_rates = places.tolist(), self.rates.estimates()[places]
        return self._drawn

    def _draw_from(
        self, rows: np.ndarray, count: int, weights: np.ndarray, generator: np.random.Generator
    ) -> list[int]:
        """Draw some of the rows of a source that the rollout does not have yet; when it has all, any of them again."""
        drawn: list[int] = []
        while len(drawn) < count:
            if not len(free := rows[~self._used[rows]]):
                self._used[rows] = False
                continue
            chosen = free[draw(weights[free], count - len(drawn), generator)]
            self._used[chosen] = True
            drawn += chosen.tolist()
        return drawn

    def record(self, outcome: Tensor) -> dict[str, float]:
        """Count the outcomes of the prompts that were chosen last.

        Args:
            outcome: (N,) of all ranks, NaN where undecided.

        Returns:
            The shares of prompts that were tried, and of those that lie in the band; the mean rate that the drawn
            prompts had before, where there is one.
        """
        groups = outcome.view(-1, self.group_size)
        right, decided = (groups > self.threshold).sum(dim=1), (~groups.isnan()).sum(dim=1)
        for place, *counts in zip(self._drawn, right.tolist(), decided.tolist(), strict=True):
            self.rates.record(place, *counts)
        tried = self.rates.tried
        metrics = {
            "curriculum/seen": float(tried.mean()),
            "curriculum/in_band": float(self.rates.in_band(self.low, self.high)[tried].mean()),
        }
        known = self._drawn_rates[~np.isnan(self._drawn_rates)]
        return metrics | ({"curriculum/rate_of_drawn": float(known.mean())} if len(known) else {})

    def state_dict(self) -> JsonObject:
        """Return what a checkpoint must have; the counts only of prompts that were tried."""
        tried = np.flatnonzero(self.rates.tried)
        counts = zip(tried.tolist(), self.rates.right[tried].tolist(), self.rates.decided[tried].tolist(), strict=True)
        return {
            "data": digest_of(self.dataset),
            "draws": self.draws,
            "position": self.sources.position,
            "counts": [list(count) for count in counts],
        }

    def load_state_dict(self, state: JsonObject) -> None:
        """Restore what `state_dict` returned.

        Raises:
            UserError: the counts are of other data.
        """
        if state["data"] != digest_of(self.dataset):
            raise UserError(
                f"The checkpoint has success rates of {len(state['counts'])} prompts by row, and the rows of the data "
                f"set ({len(self.dataset)} in use) are not those of that run: rows were added, left out, moved or "
                "changed. Restore the data set and the settings that choose its rows, or start anew from the "
                "checkpoint's weights with --model_name_or_path."
            )
        self.draws, self.sources.position = state["draws"], state["position"]
        self.rates = SuccessRates(self.rates.size, self.rates.decay)  # without those of curriculum_start
        for place, right, decided in state["counts"]:
            self.rates.tried[place] = True
            self.rates.right[place], self.rates.decided[place] = right, decided


class RefillPrompts:
    """New prompts for dropped groups, which the curriculum chooses; in a mixture they have shares of their own."""

    def __init__(self, curriculum: Curriculum, sources: Draws) -> None:
        self.curriculum, self.sources = curriculum, sources

    @property
    def position(self) -> int:
        """Number of prompts so far; setting it goes there."""
        return self.sources.position

    @position.setter
    def position(self, position: int) -> None:
        self.sources.position = position

    def take(self, count: int) -> list[int]:
        """Return the places of the next `count` prompts."""
        return self.curriculum.choose(self.sources.next_sources(count))


class FirstRowSampler(RepeatSampler):
    """As many places as TRL's sampler has, all of the first row, so that nothing is read that is not used."""

    def __init__(self, sampler: RepeatSampler, dataset: "Dataset") -> None:
        super().__init__(dataset, sampler.mini_repeat_count, sampler.batch_size, sampler.repeat_count, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        return repeat(0, len(self))


def _sources_of(dataset: "Dataset") -> Draws:
    """Return the order of the sources of a data set, which may have one."""
    return draws_of(dataset) or Draws([range(len(dataset))], [1])
