"""Select the groups of responses that train the policy, and draw new prompts for dropped groups.

A group is judged on its verifiable outcome, or on the spread of its reward before any shaping; dense rewards do not
count. Letters: N responses of all processes, B of this one, G = N / group size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.options import GroupOptions
from rlfr_vlm.shaping import group_spread

# Standard deviation of a group's rewards; below it the rewards differ by rounding only.
FLAT_SPREAD = 1e-4
# The first rollouts that RLPR's spread filter records, and filters: early spreads are not typical of the run.
RECORD_FROM, FILTER_FROM = 6, 11


def group_kinds(outcome: Tensor, group_size: int, threshold: float) -> dict[str, Tensor]:
    """Return (G,) masks of groups by their decided responses: all right, all wrong, mixed, or `undecided` (none).

    Args:
        outcome: (N,), NaN where undecided.
        threshold: a response is right above it.

    >>> kinds = group_kinds(torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, torch.nan]), 2, 0.5)
    >>> kinds["right"].tolist(), kinds["mixed"].tolist(), kinds["wrong"].tolist()
    ([True, False, False], [False, True, False], [False, False, True])
    """
    groups = outcome.view(-1, group_size)
    right = (groups > threshold).any(dim=1)
    wrong = (groups <= threshold).any(dim=1)
    return {"right": right & ~wrong, "wrong": wrong & ~right, "mixed": right & wrong, "undecided": ~right & ~wrong}


@dataclass
class SpreadFilter:
    """RLPR's filter: drop groups whose reward spreads less than beta times the running mean of that spread.

    Source: RLPR (arXiv 2506.18254), section on reward standard deviation filtering.
    """

    beta: float
    decay: float
    record_from: int = RECORD_FROM
    filter_from: int = FILTER_FROM
    rollouts: int = 0
    mean: float | None = None

    def keep(self, spread: Tensor, record: bool = True) -> Tensor:
        """Record the spreads (G,) of one rollout, and return the mask (G,) of the groups that are kept.

        Args:
            record: count this as a rollout; a refill is none.
        """
        self.rollouts += record
        if record and self.rollouts >= self.record_from:
            now = spread.mean().item()
            self.mean = now if self.mean is None else self.decay * self.mean + (1 - self.decay) * now
        if self.rollouts < self.filter_from or self.mean is None:
            return torch.ones_like(spread, dtype=torch.bool)
        return spread >= self.beta * self.mean


@dataclass
class PromptStream:
    """New prompts for dropped groups: the rows of the data set in a shuffled order, continued at `position`."""

    size: int
    seed: int
    position: int = 0

    def take(self, count: int) -> list[int]:
        """Return the next `count` row numbers; each pass over the data has a different order."""
        taken = []
        for _ in range(count):
            generator = torch.Generator().manual_seed(self.seed + self.position // self.size)
            if self.position % self.size == 0 or not hasattr(self, "_order"):
                self._order = torch.randperm(self.size, generator=generator).tolist()
            taken.append(self._order[self.position % self.size])
            self.position += 1
        return taken


@dataclass
class UndecidedGuard:
    """Stops a run if the grader cannot decide too many of its answers.

    Attributes:
        limit: largest share of undecided responses.
        window: smallest number of responses over which the share is computed.
        counts: undecided and total responses of each rollout in the window.
    """

    limit: float
    window: int
    counts: list[tuple[int, int]] = field(default_factory=list)

    def check(self, outcome: Tensor) -> None:
        """Count one rollout's outcomes (N,), NaN where undecided.

        Raises:
            UserError: the share over the last `window` responses is above the limit.
        """
        self.counts.append((int(outcome.isnan().sum()), outcome.numel()))
        while sum(n for _, n in self.counts[1:]) >= self.window:
            self.counts.pop(0)
        undecided, total = (sum(column) for column in zip(*self.counts, strict=True))
        if total >= self.window and undecided > self.limit * total:
            raise UserError(
                f"{undecided} of the last {total} responses were undecided, more than undecided_limit {self.limit}: "
                "gold answers that cannot be read (`rlfr check-data` lists them), words that no rule compares (a "
                "column answer_type: text makes all other words wrong), or time-outs; grading/* in metrics.jsonl "
                "tells which. undecided_limit: 1 never stops."
            )

    def state_dict(self) -> list[list[int]]:
        """Undecided and total responses of each rollout in the window, for a checkpoint."""
        return [list(counts) for counts in self.counts]

    def load_state_dict(self, state: Sequence[Sequence[int]]) -> None:
        """Restore what `state_dict` returned."""
        self.counts = [(undecided, total) for undecided, total in state]


class Stream(Protocol):
    """New prompts; `take` goes on at `position`, the number of prompts so far."""

    position: int

    def take(self, count: int) -> list[int]:
        """Return the places of the next `count` prompts in the data set."""
        ...


class GroupSelector:
    """Decides which groups of each rollout teach, and keeps the state that a checkpoint must have.

    Args:
        options: the group options of the run.
        group_size: responses per prompt.
        threshold: a response is right above it.
        dataset_size, seed: for the stream of new prompts.
        stream: of new prompts; None is a shuffled order of the data set.
    """

    def __init__(
        self,
        options: GroupOptions,
        group_size: int,
        threshold: float,
        dataset_size: int,
        seed: int,
        stream: Stream | None = None,
    ) -> None:
        self.options = options
        self.group_size = group_size
        self.threshold = threshold
        self.spread = SpreadFilter(options.spread_beta, options.spread_decay)
        self.stream: Stream = PromptStream(dataset_size, seed + 1) if stream is None else stream

    def judge(self, outcome: Tensor, total: Tensor, record: bool = True) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Find the responses that the filter keeps and those of flat groups, and measure the kinds of groups.

        In a flat group the outcome advantage would be the quotient of two rounding errors, so it gets none; token
        rewards still count there. A group that the filter drops gets no advantage of any kind.

        Args:
            outcome: (N,) outcome reward of all processes, NaN where undecided.
            total: (N,) weighted sum of the rewards, before any shaping.
            record: count this as a rollout of the spread filter; a refill is none.

        Returns:
            (N,) bool kept, (N,) bool flat, and metrics.
        """
        kinds = group_kinds(outcome, self.group_size, self.threshold)
        spread = group_spread(total, self.group_size)
        keep = torch.ones_like(spread, dtype=torch.bool)
        if self.options.group_filter == "mixed":
            keep = kinds["mixed"]
        elif self.options.group_filter == "spread":
            keep = self.spread.keep(spread, record)
        flat = spread < FLAT_SPREAD
        metrics = {f"groups/all_{kind}": kinds[kind].float().mean().item() for kind in ("right", "wrong")}
        metrics |= {"groups/mixed": kinds["mixed"].float().mean().item(), "groups/spread": spread.mean().item()}
        metrics |= {"groups/kept": keep.float().mean().item(), "groups/flat": flat.float().mean().item()}
        if self.spread.mean is not None:
            metrics["groups/spread_running_mean"] = self.spread.mean
        return keep.repeat_interleave(self.group_size), flat.repeat_interleave(self.group_size), metrics

    def new_prompts(self, count: int, process: int, processes: int) -> Sequence[int]:
        """Return the row numbers of `count` new prompts for this process; `count` is equal on all processes."""
        taken = self.stream.take(count * processes)
        return taken[process * count : (process + 1) * count]

    def state_dict(self) -> JsonObject:
        return {
            "spread": {"rollouts": self.spread.rollouts, "mean": self.spread.mean},
            "position": self.stream.position,
        }

    def load_state_dict(self, state: JsonObject) -> None:
        self.spread.rollouts, self.spread.mean = state["spread"]["rollouts"], state["spread"]["mean"]
        self.stream.position = state["position"]
