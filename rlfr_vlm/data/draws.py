"""The order in which the prompts of a mixture are drawn, so that every stretch of a run has each source's share.

Which source comes next follows from the weights alone: of the sources that are not ahead of their share, the one that
is furthest behind. After any number n of prompts a source with share p has had floor(pn) or ceil(pn) of them. This is
the quota method of apportionment (M. L. Balinski and H. P. Young, The Quota Method of Apportionment, American
Mathematical Monthly 82, 1975, pages 701-730). `datasets.interleave_datasets` draws the source at random instead, and
opens images through a second table of indices.

Which row of a source comes next: all of them in a shuffled order, then all in another one, across epochs.
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from rlfr_vlm.data.mixture import mixture_of
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset


class Draws:
    """An endless order of the rows of several sources; `take` goes on where it ended.

    Args:
        members: for each source, its rows, as any numbers that differ; none is empty.
        weights: of the sources, above 0.
        seed: of the shuffled orders of rows.
        shuffle: otherwise the rows of a source come in the order of `members`.
    """

    def __init__(
        self, members: Sequence[Sequence[int]], weights: Sequence[Fraction | int], seed: int = 0, shuffle: bool = True
    ) -> None:
        self.members = members
        unit = math.lcm(*(Fraction(weight).denominator for weight in weights))
        self.weights = [int(weight * unit) for weight in weights]  # whole numbers compare exactly
        self.total = sum(self.weights)
        self.seed, self.shuffle = seed, shuffle
        self._orders: dict[int, tuple[int, Sequence[int]]] = {}  # source -> pass over its rows, and their order in it
        self.counts = [0] * len(members)  # prompts of each source so far

    @property
    def position(self) -> int:
        """Number of rows drawn so far; setting it goes there from the beginning."""
        return sum(self.counts)

    @position.setter
    def position(self, position: int) -> None:
        self.counts = [0] * len(self.members)
        for _ in self.next_sources(position):
            pass

    def take(self, count: int) -> list[int]:
        """Return the next `count` rows.

        >>> Draws([[0, 1, 2], [3]], [2, 1], shuffle=False).take(6)
        [0, 1, 3, 2, 0, 3]
        """
        return [self._row(source, self.counts[source] - 1) for source in self.next_sources(count)]

    def next_sources(self, count: int) -> Iterator[int]:
        """Yield the sources of the next `count` prompts, and count them."""
        for _ in range(count):
            source = self._next_source()
            self.counts[source] += 1
            yield source

    def share(self, source: int) -> float:
        """Share of the prompts that a source has."""
        return self.weights[source] / self.total

    def _next_source(self) -> int:
        best, due = -1, self.position + 1
        for source, (weight, count) in enumerate(zip(self.weights, self.counts, strict=True)):
            if count * self.total >= weight * due:  # one more would be above its share, rounded up
                continue
            # the larger weight / (count + 1); the first of equal ones
            if best < 0 or weight * (self.counts[best] + 1) > self.weights[best] * (count + 1):
                best = source
        return best

    def _row(self, source: int, number: int) -> int:
        """Return the row of a source's prompt `number`."""
        rows = self.members[source]
        if not self.shuffle:
            return rows[number % len(rows)]
        done, place = divmod(number, len(rows))
        if self._orders.get(source, (-1, ()))[0] != done:
            generator = np.random.default_rng([self.seed % 2**63, source, done])
            self._orders[source] = (done, generator.permutation(len(rows)).tolist())
        return rows[self._orders[source][1][place]]


def draws_of(dataset: "Dataset", seed: int = 0, shuffle: bool = True) -> Draws | None:
    """Return the order in which the places of a data set are drawn; None if it is no mixture's.

    Args:
        dataset: of `as_dataset`, or a part of one.
        seed, shuffle: of the rows within a source.

    Raises:
        UserError: a source has no rows left.
    """
    mixture = mixture_of(dataset)
    if mixture is None:
        return None
    members: list[list[int]] = [[] for _ in mixture.sources]
    for place, number in enumerate(dataset.with_format(None)["number"]):
        members[mixture.source_of(number)].append(place)
    for source, rows in zip(mixture.sources, members, strict=True):
        if not rows:
            raise UserError(
                f"The source {source.name} has no rows left: its prompts are too long, or its rows have other "
                "verdicts. Leave it out, or raise max_prompt_tokens."
            )
    weights = [source.weight or len(rows) for source, rows in zip(mixture.sources, members, strict=True)]
    return Draws(members, weights, seed, shuffle)


def describe_mixture(dataset: "Dataset", prompts: int) -> str:
    """Say in one line how often each source of a mixture is drawn from; "" if there is one source.

    Args:
        prompts: number of prompts of an epoch.
    """
    mixture, draws = mixture_of(dataset), draws_of(dataset)
    if mixture is None or draws is None:
        return ""
    parts = []
    for index, (source, rows) in enumerate(zip(mixture.sources, draws.members, strict=True)):
        share = draws.share(index)
        weight = "weight by rows" if source.weight is None else f"weight {float(source.weight):g}"
        name = source.label if source.label == source.name else f"{source.label} ({source.name})"
        passes = share * prompts / len(rows)
        parts.append(f"{name} {len(rows):,} rows, {weight}, share {share:.1%}, {passes:.2f} passes an epoch")
    return f"mixture, {prompts:,} prompts an epoch: {'; '.join(parts)}"
