"""A data set ready for the trainers: rows in one form, images opened when a row is read, bad rows replaced."""

import bisect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.bad_rows import BadRows
from rlfr_vlm.data.digits import SPLITS, load_digits_task
from rlfr_vlm.data.images import ImageRules, open_image
from rlfr_vlm.data.prompts import build_messages, flatten_text
from rlfr_vlm.data.read import RawDataset, keep_encoded, read_dataset
from rlfr_vlm.data.rows import MALFORMED, BadRow, Converter, Row, check_columns, parse_mapping
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.models import VISION_TOKENS
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from datasets import Dataset

DIGITS = "digits"
REPLACEMENT_STEPS = (104_729, 7_919, 1)  # the walk for a replacement meets every row, in no order of theirs
FIRST_ROWS = 20  # looked at for columns that are missing everywhere


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
        self.convert = Converter(options.dataset_format, parse_mapping(options.dataset_columns))
        self.rules = image_rules(options, raw.media_root)
        self.pixel_limits = pixel_limits or {}
        self.kept: Sequence[int] = range(len(raw.dataset))
        self.for_text_policy = False
        self.bad_rows = BadRows(options.bad_row_limit, len(raw.dataset))

    def described(self, number: int) -> Row:
        """A row with messages, its images not opened.

        Raises:
            BadRow: it cannot be used.
        """
        row = self.convert(self.raw.row(self.raw.dataset[number]))
        check_columns(row, self.needed)
        if row["images"] and self.for_text_policy:
            raise BadRow("image", "the policy is text-only and cannot look at it")
        try:
            row["prompt"] = build_messages(row["prompt"], len(row["images"]), self.system_prompt)
        except UserError as error:
            raise BadRow("image places", str(error)) from None
        except MALFORMED as error:
            raise BadRow("prompt", f"{type(error).__name__}: {error}") from None
        _check_text(row)
        return row

    def opened(self, number: int, cache: dict[Any, Any] | None = None) -> Row:
        """A row with its images decoded. Rows of one batch share a cache, so that a repeated row decodes once.

        Raises:
            BadRow: it cannot be used.
        """
        row = self.described(number)
        cache = {} if cache is None else cache
        row["row_number"] = number
        row["image_paths"] = [
            value if isinstance(value, str) and len(value) < 300 else None for value in row["images"]
        ]
        for place, value in enumerate(row["images"]):
            key = (number, place)
            if key not in cache:
                cache[key] = shrink(open_image(value, self.rules), self.pixel_limits.get(number))
            row["images"][place] = cache[key]
        return row

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        cache: dict[Any, Any] = {}
        rows = [self._usable(number, cache) for number in batch["number"]]
        names = dict.fromkeys(name for row in rows for name in row if row[name] is not None)
        return {name: [row.get(name) for row in rows] for name in names}

    def _usable(self, number: int, cache: dict[Any, Any]) -> Row:
        """The row, or for a bad one always the same other row (marked `replaced_row`); GRPO's groups stay whole."""
        size, first = len(self.kept), ""
        stride = next(step for step in REPLACEMENT_STEPS if math.gcd(step, size) == 1)
        place = bisect.bisect_left(self.kept, number)
        for step in range(size):
            candidate = self.kept[(place + step * stride) % size]
            try:
                row = self.opened(candidate, cache)
            except BadRow as error:
                first = first or f"row {candidate}: {error}"
                self.bad_rows.note(candidate, error)
                continue
            self.bad_rows.note(candidate, None)
            return row | {"replaced_row": first} if first else row
        raise UserError(
            f"No row of the dataset can be used; {first}. `rlfr check-data` lists what is wrong with each."
        )


def _check_text(row: Row) -> None:
    """What the tokenizer or the processor would die of, or take for an image."""
    text = "".join(message["content"] for message in flatten_text(row["prompt"]))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("text", f"it holds half a character: {error}") from None
    if row["images"] and (found := [token for token in VISION_TOKENS if token in text]):
        raise BadRow("image places", f"its text has {found[0]}; mark images with <image>")


def image_rules(options: DataOptions, media_root: Path | None) -> ImageRules:
    """The rules for images in the options."""
    root = Path(options.media_root) if options.media_root else media_root
    return ImageRules(root, options.image_min_side, options.image_max_ratio, options.image_pixel_ceiling)


def shrunk_size(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Width and height of an image that may have at most `pixels` pixels."""
    width, height = size
    if width * height <= pixels:
        return size
    factor = (pixels / (width * height)) ** 0.5
    return max(1, int(width * factor)), max(1, int(height * factor))


def shrink(image: Any, pixels: int | None) -> Any:
    """The image with at most `pixels` pixels; None is no limit."""
    size = image.size if pixels is None else shrunk_size(image.size, pixels)
    return image if size == image.size else image.resize(size)


def read_rows(options: DataOptions, needed: Sequence[str] = ("prompt",), seed: int = 0) -> Rows:
    """The rows that the options name, not opened yet.

    Raises:
        UserError: no such data set or split, no rows, or the first row lacks a needed column.
    """
    name, split = options.dataset_name, options.dataset_split
    if options.dataset_limit is not None and options.dataset_limit < 1:
        raise UserError(f"dataset_limit is {options.dataset_limit}; it is a number of rows, at least 1.")
    if not name:
        raise UserError("dataset_name is not set. Give `digits`, a file, a folder or a hub id.")
    if name == DIGITS:
        if split not in SPLITS:
            raise UserError(
                f"digits has no split {split!r}; it has {' and '.join(SPLITS)}. Set dataset_split to one of them."
            )
        raw = RawDataset(keep_encoded(load_digits_task(split, options.dataset_limit or 4096, seed)), None)
    else:
        raw = read_dataset(name, split, options.dataset_revision, options.dataset_config)
        if options.dataset_limit is not None:
            raw.dataset = raw.dataset.select(range(min(options.dataset_limit, len(raw.dataset))))
    if len(raw.dataset) == 0:
        raise UserError(f"Dataset {name} (split {split}) has no rows.")
    rows = Rows(raw, options, needed)
    _check_first(rows, name)
    return rows


def _check_first(rows: Rows, name: str) -> None:
    """A column that no row has is a mistake in the configuration, not a bad row."""
    stored: dict[str, None] = {}
    found: set[str] = set()
    for number in range(min(FIRST_ROWS, len(rows.raw.dataset))):
        try:
            raw = rows.raw.row(rows.raw.dataset[number])
            stored |= dict.fromkeys(map(str, raw))
            found |= set(rows.convert(raw))
        except (BadRow, TypeError):
            continue
    if not stored:
        return
    for column, source in rows.convert.mapping.items():
        if source not in stored:
            raise UserError(
                f"dataset_columns maps {column} to {source!r}, but {name} has {', '.join(stored)}."
                f"{nearest(source, stored)}"
            )
    for column in rows.needed:
        if column not in found and column not in stored:
            raise UserError(
                f"Dataset {name} has no column {column!r}; it has {', '.join(stored)}.{nearest(column, stored)} Map "
                f"it with dataset_columns: [{column}=...], or choose another dataset."
            )


def as_dataset(rows: Rows, keep: Sequence[int] | None = None) -> "Dataset":
    """A dataset of row numbers whose rows are made when they are read; `keep` leaves some out."""
    import datasets

    if keep is not None:
        rows.kept = sorted(keep)
    return datasets.Dataset.from_dict({"number": list(rows.kept)}).with_transform(rows)


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
