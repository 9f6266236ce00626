"""Several data sets as one: the rows of its sources one after another, each with its own folder of images.

A row has the column `mixture_source`, the label of its source. How often the sources are drawn from is the trainer's
concern (`draws.py`); here each row is there once. Bad rows are replaced and counted within their source.
"""

import bisect
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.bad_rows import BadRows
from rlfr_vlm.data.images import ImageRules
from rlfr_vlm.data.row_loader import MediaCache, Rows
from rlfr_vlm.data.rows import BadRow, Converter, Row, parse_mapping
from rlfr_vlm.data.source import check_first_rows, columns_of_first_rows, is_made_here, open_source
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading.gym import ENTRY_COLUMN
from rlfr_vlm.options import DataOptions
from rlfr_vlm.sources import Source, joined, sources_of, split_of

if TYPE_CHECKING:
    from datasets import Dataset

    from rlfr_vlm.data.encode import ProcessingClass

SOURCE_COLUMN = "mixture_source"


class Mixture(Rows):
    """Rows of several sources. A row's number counts through the sources in their order; the rest is each source's.

    Args:
        sources: names, weights and labels.
        parts: the rows of each source.
        options: options of the run.
    """

    def __init__(self, sources: Sequence[Source], parts: Sequence[Rows], options: DataOptions) -> None:
        self.sources, self.parts = sources, parts
        self.starts = [0, *accumulate(part.size for part in parts)]
        self.labels = [source.label for source in sources]
        self.needed = parts[0].needed
        self.bad_rows = BadRows(options.bad_row_limit, self.size)  # of readers that replace no row
        for part, label in zip(parts, self.labels, strict=True):
            part.source = part.bad_rows.source = label

    @property
    def size(self) -> int:
        """Number of stored rows of all sources, in use or not."""
        return self.starts[-1]

    def source_of(self, number: int) -> int:
        """Index of the source of a row."""
        return bisect.bisect_right(self.starts, number) - 1

    def _locate(self, number: int) -> tuple[Rows, str, int]:
        """Return the rows and the label of a row's source, and the row's number there."""
        source = self.source_of(number)
        return self.parts[source], self.labels[source], number - self.starts[source]

    def _part_of(self, row: Row) -> Rows:
        return self.parts[self.labels.index(row[SOURCE_COLUMN])]

    def _by_source(self, values: Mapping[int, Any]) -> list[dict[int, Any]]:
        """Return values by row number for each source, with its own numbers."""
        parts: list[dict[int, Any]] = [{} for _ in self.parts]
        for number, value in values.items():
            source = self.source_of(number)
            parts[source][number - self.starts[source]] = value
        return parts

    # --- what is set for all sources --------------------------------------------------------------------------------

    @property
    def indices(self) -> Sequence[int]:
        """Numbers of the rows in use."""
        parts = zip(self.starts, self.parts, strict=False)
        return [start + number for start, part in parts for number in part.indices]

    @indices.setter
    def indices(self, numbers: Sequence[int]) -> None:
        for part, chosen in zip(self.parts, self._by_source(dict.fromkeys(numbers)), strict=True):
            part.indices = sorted(chosen)

    @property
    def refused(self) -> dict[int, BadRow]:
        """Rows that are bad because of other rows or of the grader, by number."""
        return self._joined(lambda part: part.refused)

    @refused.setter
    def refused(self, rows: Mapping[int, BadRow]) -> None:
        for part, own in zip(self.parts, self._by_source(rows), strict=True):
            part.refused = own

    @property
    def pixel_limits(self) -> dict[int, int]:
        """For some row numbers, the largest number of pixels of each image."""
        return self._joined(lambda part: part.pixel_limits)

    @pixel_limits.setter
    def pixel_limits(self, limits: Mapping[int, int]) -> None:
        for part, own in zip(self.parts, self._by_source(limits), strict=True):
            part.pixel_limits = own

    def _joined(self, values: Callable[[Rows], Mapping[int, Any]]) -> dict[int, Any]:
        return {
            start + number: value
            for start, part in zip(self.starts, self.parts, strict=False)
            for number, value in values(part).items()
        }

    @property
    def no_videos(self) -> str:
        """Why rows with videos are rejected; empty where they are not."""
        return self.parts[0].no_videos

    @no_videos.setter
    def no_videos(self, reason: str) -> None:
        for part in self.parts:
            part.no_videos = reason

    def suit(self, processing_class: "ProcessingClass") -> None:
        """Reject what the policy of a processor or tokenizer cannot take."""
        for part in self.parts:
            part.suit(processing_class)

    # --- rows -------------------------------------------------------------------------------------------------------

    def place(self, number: int) -> str:
        """Name a row in a message, by its number in its source."""
        part, _, own = self._locate(number)
        return part.place(own)

    def rules_of(self, row: Row) -> ImageRules:
        """Return the limits on the images of a converted row, and the folder of their paths."""
        return self._part_of(row).rules

    @property
    def media_folder(self) -> Path:
        """The folder that holds the folders of all sources that have one."""
        folders = [part.media_folder for part in self.parts if part.rules.media_root is not None]
        return Path(os.path.commonpath(folders)) if folders else Path.cwd()

    def first(self, count: int) -> Sequence[int]:
        """Numbers of the first rows in use of each source, at most `count` together."""
        each = count // len(self.parts)
        starts = zip(self.starts, self.parts, strict=False)
        return [start + number for start, part in starts for number in part.indices[:each]]

    def parse(self, number: int) -> Row:
        """Return a row with its prompt as messages. The images are not opened.

        Raises:
            BadRow: the row cannot be used.
        """
        part, label, own = self._locate(number)
        return part.parse(own) | {SOURCE_COLUMN: label}

    def converted(self, number: int) -> Row:
        """Return a row in the documented format, whose values are not checked yet.

        Raises:
            BadRow: the row cannot be converted, or lacks a column.
        """
        part, label, own = self._locate(number)
        return part.converted(own) | {SOURCE_COLUMN: label}

    def checked(self, row: Row) -> Row:
        """Return a converted row with its prompt as messages and its answer in a form that the grader reads.

        Raises:
            BadRow: a value would train the policy on a wrong answer or prompt.
        """
        return self._part_of(row).checked(row)

    def media_sizes(self, row: Row, decode: bool = False) -> list[tuple[int, int]]:
        """Open the videos of a parsed row, and return the sizes of its images; `decode` decodes the images, too.

        Raises:
            BadRow: an image or a video cannot be used.
        """
        return self._part_of(row).media_sizes(row, decode)

    def stored_values(self, *columns: str) -> dict[int, tuple[Any, ...]]:
        """Values of columns in each row of `indices`, as they are stored; None in rows without the column.

        Raises:
            UserError: no row of a source has one of the columns.
        """
        return self._joined(lambda part: part.stored_values(*columns))

    def load(self, number: int, cache: MediaCache | None = None) -> Row:
        """Return a row with decoded images; the cache is not used, as its keys are numbers within a source.

        Raises:
            BadRow: the row cannot be used.
        """
        part, label, own = self._locate(number)
        return part.load(own) | {SOURCE_COLUMN: label, "row_number": number}

    def load_batch(self, numbers: Sequence[int]) -> list[Row]:
        """Return rows, with the replacements of those that are bad, which are rows of the same source."""
        rows: dict[int, Row] = {}  # by their places among the numbers
        for source, (part, label) in enumerate(zip(self.parts, self.labels, strict=True)):
            places = [place for place, number in enumerate(numbers) if self.source_of(number) == source]
            start = self.starts[source]
            loaded = part.load_batch([numbers[place] - start for place in places])
            for place, row in zip(places, loaded, strict=True):
                rows[place] = row | {SOURCE_COLUMN: label, "row_number": start + row["row_number"]}
        return [rows[place] for place in range(len(numbers))]


def read_mixture(options: DataOptions, needed: Sequence[str], seed: int, gym_limit: int | None = None) -> Mixture:
    """Read the sources of a mixture. Each option holds for all of them, as far as it fits.

    `dataset_split` and `dataset_format` are not those of files, which have no splits, and of built-in tasks, which
    have the documented format. A pair of `dataset_columns` holds for the sources that have its column.

    Args:
        options, needed, seed, gym_limit: as for `load.read_rows`.

    Raises:
        UserError: a source cannot be read, or a pair of `dataset_columns` fits none of them.
    """
    sources = sources_of(options.dataset_name)
    pairs = parse_mapping(options.dataset_columns)
    parts, columns = [], dict[str, None]()
    for source in sources:
        own = dataclasses.replace(options, dataset_split=split_of(source.name, options.dataset_split))
        if is_made_here(source.name):
            own = dataclasses.replace(own, dataset_columns=[], dataset_format="auto")
        part = open_source(source.name, own, needed, seed, gym_limit)
        stored, _ = columns_of_first_rows(part)
        if not is_made_here(source.name):
            present = {name: column for name, column in pairs.items() if column in stored}
            part.convert = Converter(options.dataset_format, present)
            columns |= dict.fromkeys(stored)
        check_first_rows(part, source.name)
        parts.append(part)
    for name, column in pairs.items():
        if column not in columns:
            raise UserError(
                f"dataset_columns maps {name} to {column!r}, and no source of {joined(options.dataset_name)} has that "
                f"column.{nearest(column, columns)}"
            )
    return Mixture(sources, parts, options)


def mixture_of(dataset: object) -> Mixture | None:
    """Return the mixture that makes the rows of a data set; None if they are of one source."""
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        return None
    transform = (dataset.format.get("format_kwargs") or {}).get("transform")
    return transform if isinstance(transform, Mixture) else None


def labels_of(dataset: "Dataset") -> list[str] | None:
    """Return the label of the source of each row of a data set, in order; None if it is no mixture's."""
    mixture = mixture_of(dataset)
    if mixture is None:
        return None
    return [mixture.labels[mixture.source_of(number)] for number in dataset.with_format(None)["number"]]


def refuse_unscored_sources(rows: Rows, rewards: Sequence[str]) -> None:
    """Refuse the reward of reasoning-gym where a source has no rows that it can score.

    Raises:
        UserError: names the source.
    """
    if not isinstance(rows, Mixture) or "reasoning_gym" not in rewards:
        return
    for source, part in zip(rows.sources, rows.parts, strict=True):
        if ENTRY_COLUMN not in columns_of_first_rows(part)[0]:
            raise UserError(
                f"The reward reasoning_gym scores rows of reasoning-gym's tasks, and the source {source.name} has "
                "none. Set rewards: [accuracy], which leaves rows of tasks to their own scorers, or leave the source "
                "out."
            )
