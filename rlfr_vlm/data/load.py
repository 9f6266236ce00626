"""A data set ready for the trainers: rows in one form, images opened when a row is read, bad rows replaced."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.digits import SPLITS, load_digits_task
from rlfr_vlm.data.images import ImageRules, open_image
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.data.read import RawDataset, read_dataset
from rlfr_vlm.data.rows import COLUMNS, BadRow, Row, check_columns, make_converter, parse_mapping
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
DIGITS = "digits"
REPLACEMENT_STEP = 104_729  # a prime, so that the walk for a replacement meets every row
SHOWN = 10  # bad rows that are named in the log; all are counted
ENOUGH_READ = 20  # rows read before a share of bad ones means anything


@dataclass
class BadRows:
    """Counts bad rows met while reading, and stops when there are too many.

    Attributes:
        limit: largest share of bad rows among those read.
        read, bad: row numbers seen; a row read again counts once.
        reasons: how many bad rows of each kind.
    """

    limit: float
    read: set[int] = field(default_factory=set)
    bad: set[int] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)

    def note(self, number: int, error: BadRow | None) -> None:
        """Count a row.

        Raises:
            UserError: the share of bad rows is above the limit.
        """
        self.read.add(number)
        if error is None or number in self.bad:
            return
        self.bad.add(number)
        if len(self.bad) <= SHOWN:
            logger.warning("row %d is bad and replaced by another one: %s: %s", number, error.reason, error.detail)
        self.reasons[error.reason] += 1
        enough = len(self.read) >= ENOUGH_READ
        if enough and len(self.bad) > self.limit * len(self.read):
            kinds = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise UserError(
                f"{len(self.bad)} of {len(self.read)} rows read so far are bad ({kinds}), more than bad_row_limit "
                f"{self.limit}. Row {number}: {error.detail}. `rlfr check-data` lists all and writes a clean set."
            )


class Rows:
    """Turns stored rows into documented ones. Used as the transform of a `datasets.Dataset`.

    Args:
        raw: the stored rows.
        options: of the run.
        needed: columns every row must have.
        pixel_limits: by row number, the most pixels each of its images may have (see tokens.py).
    """

    def __init__(
        self, raw: RawDataset, options: DataOptions, needed: Sequence[str], pixel_limits: dict[int, int] | None = None
    ) -> None:
        self.raw = raw
        self.needed = tuple(needed)
        self.system_prompt = options.system_prompt
        self.convert = make_converter(options.dataset_format, parse_mapping(options.dataset_columns))
        self.rules = image_rules(options, raw.media_root)
        self.pixel_limits = pixel_limits or {}
        self.bad_rows = BadRows(options.bad_row_limit)

    def described(self, number: int) -> Row:
        """A row with messages, its images not opened.

        Raises:
            BadRow: it cannot be used.
        """
        row = self.convert(self.raw.row(self.raw.dataset[number]))
        check_columns(row, self.needed)
        try:
            row["prompt"] = build_messages(row["prompt"], len(row["images"]), self.system_prompt)
        except (UserError, KeyError, TypeError, AttributeError) as error:
            raise BadRow("image places" if isinstance(error, UserError) else "prompt", str(error)) from None
        return row

    def opened(self, number: int, cache: dict[Any, Any] | None = None) -> Row:
        """A row with its images decoded. Rows of one batch share a cache, so that a repeated row decodes once.

        Raises:
            BadRow: it cannot be used.
        """
        row = self.described(number)
        cache = {} if cache is None else cache
        for place, value in enumerate(row["images"]):
            key = (number, place)
            if key not in cache:
                cache[key] = shrink(open_image(value, self.rules), self.pixel_limits.get(number))
            row["images"][place] = cache[key]
        return row

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        cache: dict[Any, Any] = {}
        rows = [self._usable(number, cache) for number in batch["number"]]
        names = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
        return {name: [row.get(name) for row in rows] for name in names}

    def _usable(self, number: int, cache: dict[Any, Any]) -> Row:
        """The row, or for a bad one always the same other row; GRPO's groups stay whole."""
        size, first = len(self.raw.dataset), ""
        for step in range(size):
            candidate = (number + step * REPLACEMENT_STEP) % size
            try:
                row = self.opened(candidate, cache)
            except BadRow as error:
                first = first or f"row {candidate}: {error.reason}: {error.detail}"
                self.bad_rows.note(candidate, error)
                continue
            self.bad_rows.note(candidate, None)
            return row
        raise UserError(
            f"No row of the dataset can be used; {first}. `rlfr check-data` lists what is wrong with each."
        )


def image_rules(options: DataOptions, media_root: Path | None) -> ImageRules:
    """The rules for images in the options."""
    root = Path(options.media_root) if options.media_root else media_root
    return ImageRules(root, options.image_min_side, options.image_max_ratio)


def shrink(image: Any, pixels: int | None) -> Any:
    """The image with at most `pixels` pixels."""
    if pixels is None or image.width * image.height <= pixels:
        return image
    factor = (pixels / (image.width * image.height)) ** 0.5
    return image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))))


def read_rows(options: DataOptions, needed: Sequence[str] = ("prompt",), seed: int = 0) -> Rows:
    """The rows that the options name, not opened yet.

    Raises:
        UserError: no such data set or split, no rows, or the first row lacks a needed column.
    """
    name, split = options.dataset_name, options.dataset_split
    if not name:
        raise UserError("dataset_name is not set. Give `digits`, a file, a folder or a hub id.")
    if name == DIGITS:
        if split not in SPLITS:
            raise UserError(
                f"digits has no split {split!r}; it has {' and '.join(SPLITS)}. Set dataset_split to one of them."
            )
        from rlfr_vlm.data.read import keep_encoded

        raw = RawDataset(keep_encoded(load_digits_task(split, options.dataset_limit or 4096, seed)), None)
    else:
        raw = read_dataset(name, split, options.dataset_revision)
        if options.dataset_limit is not None:
            raw.dataset = raw.dataset.select(range(min(options.dataset_limit, len(raw.dataset))))
    if len(raw.dataset) == 0:
        raise UserError(f"Dataset {name} (split {split}) has no rows.")
    rows = Rows(raw, options, needed)
    _check_first(rows, name)
    return rows


def _check_first(rows: Rows, name: str) -> None:
    """A column that the first row lacks is most likely a mistake in the configuration, not one bad row."""
    for number in range(min(ENOUGH_READ, len(rows.raw.dataset))):
        try:
            stored = rows.raw.row(rows.raw.dataset[number])
            row = rows.convert(stored)
        except BadRow:
            continue
        for column in rows.needed:
            if column not in row:
                raise UserError(
                    f"Dataset {name} has no column {column!r}; it has {', '.join(stored)}.{nearest(column, stored)} "
                    f"Map it with dataset_columns: [{column}=...], or choose another dataset."
                )
        return


def as_dataset(rows: Rows, keep: Sequence[int] | None = None) -> "Dataset":
    """A dataset of row numbers whose rows are made when they are read; `keep` leaves some out."""
    import datasets

    numbers = list(range(len(rows.raw.dataset))) if keep is None else list(keep)
    return datasets.Dataset.from_dict({"number": numbers}).with_transform(rows)


def rows_of(dataset: Any) -> Rows | None:
    """What makes the rows of a dataset from `as_dataset`; None for any other."""
    transform = getattr(dataset, "format", {}).get("format_kwargs", {}).get("transform")
    return transform if isinstance(transform, Rows) else None


def load_rows(
    name: str, *, columns: Sequence[str] = ("prompt",), seed: int = 0, split: str = "train", limit: int | None = None,
    revision: str | None = None, system_prompt: str | None = None, **others: Any,
) -> "Dataset":  # fmt: skip
    """Load `name`, ready for the trainers. `others` are further fields of `DataOptions`.

    Raises:
        UserError: no such data set, split or column.
    """
    options = DataOptions(
        dataset_name=name, dataset_split=split, dataset_limit=limit, dataset_revision=revision,
        system_prompt=system_prompt, **others,
    )  # fmt: skip
    return as_dataset(read_rows(options, columns, seed))
