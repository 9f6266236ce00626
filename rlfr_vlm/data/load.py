"""Load a data set for training: convert rows, open images when a row is read, and replace bad rows."""

import bisect
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rlfr_vlm.data.answer_checks import check_options, clean_answer
from rlfr_vlm.data.bad_rows import BadRows
from rlfr_vlm.data.digit_videos import load_digit_videos
from rlfr_vlm.data.digits import SPLITS, load_digits_task
from rlfr_vlm.data.encode import is_text_only, special_tokens
from rlfr_vlm.data.image_sizes import SizeLimits, limited, limited_size, limits_of, shrink
from rlfr_vlm.data.images import ImageRules, image_size, open_image
from rlfr_vlm.data.prompts import build_messages, flatten_text, with_videos
from rlfr_vlm.data.read import TEXT_COLUMN, RawDataset, keep_encoded, read_dataset
from rlfr_vlm.data.row_checks import check_columns_of_media, check_media_of_blocks, check_messages
from rlfr_vlm.data.rows import MALFORMED, BadRow, Converter, Row, check_columns, parse_mapping
from rlfr_vlm.data.tasks import TASKS
from rlfr_vlm.data.text_checks import check_question, check_response, check_text
from rlfr_vlm.data.videos import VideoRules, name_of_video, open_video
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading.gym import PREFIX, generate, is_gym_name
from rlfr_vlm.models import VISION_TOKENS, family_of_processor
from rlfr_vlm.options import EMBEDDED_TASKS, DataOptions

if TYPE_CHECKING:
    from datasets import Dataset

    from rlfr_vlm.data.encode import ProcessingClass

# Decoded images and videos by kind, row number and position.
MediaCache: TypeAlias = dict[tuple[str, int, int], Any]


# Tasks that need no files; EMBEDDED_TASKS of options.py has their names.
EMBEDDED: dict[str, Callable[[str, int, int], "Dataset"]] = {
    "digits": load_digits_task,
    "digits_video": load_digit_videos,
    **{name: task.load for name, task in TASKS.items()},
}
REPLACEMENT_STRIDES = (104_729, 7_919, 1)  # primes; coprime to the data set size, so that the search visits every row
DEFAULT_PATCH_SIZE = 14  # of Qwen2-VL and Qwen2.5-VL, where no processor says
FIRST_ROWS = 20  # rows that are searched for columns that no row has
MAX_PATH_LENGTH = 300  # characters; a longer text is an embedded image


class Rows:
    """Converts stored rows to the documented format. Used as the transform of a `datasets.Dataset`.

    Args:
        raw: the stored rows.
        options: options of the run.
        needed: columns that every row must have.
        pixel_limits: for some row numbers, the largest number of pixels of each image (see lengths.py).

    Attributes:
        indices: numbers of the rows in use.
        for_text_policy: reject rows with images and videos, because the policy is text-only.
        no_videos: why rows with videos are rejected; empty where they are not.
        patch_size: pixels of a side of the vision tower's patches, of which limits on single images are multiples.
        special_tokens: of the policy's tokenizer; rows whose texts have one are bad.
        refused: rows that are bad because of other rows or of the grader, by number (see across_rows.py).
        bad_rows: counts of the bad rows read so far.
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
        self.indices: Sequence[int] = range(len(raw.dataset))
        self.video_rules = video_rules(options, self.rules)
        self.for_text_policy = False
        self.no_videos = ""
        self.patch_size = DEFAULT_PATCH_SIZE
        self.special_tokens: Sequence[str] = ()
        self.refused: dict[int, BadRow] = {}
        self.bad_rows = BadRows(options.bad_row_limit, len(raw.dataset))

    def suit(self, processing_class: "ProcessingClass") -> None:
        """Reject what the policy of a processor or tokenizer cannot take."""
        family = family_of_processor(processing_class)
        self.for_text_policy = is_text_only(processing_class)
        self.special_tokens = special_tokens(processing_class)
        self.no_videos = "" if family.takes_videos else f"{family.name} take no videos here"
        patch_size = getattr(getattr(processing_class, "image_processor", None), "patch_size", None)
        self.patch_size = patch_size if isinstance(patch_size, int) else DEFAULT_PATCH_SIZE

    def parse(self, number: int) -> Row:
        """Return a row with its prompt as messages. The images are not opened.

        Raises:
            BadRow: the row cannot be used.
        """
        if (refused := self.refused.get(number)) is not None:
            raise BadRow(refused.reason, refused.detail)
        return self.checked(self.converted(number))

    def converted(self, number: int) -> Row:
        """Return a row in the documented format, whose values are not checked yet.

        Raises:
            BadRow: the row cannot be converted, or lacks a column.
        """
        row = self.convert(self.raw.row(self.raw.dataset[number]))
        check_columns(row, self.needed)
        return row

    def stored_values(self, *columns: str) -> dict[int, tuple[Any, ...]]:
        """Values of columns in each row of `indices`, as they are stored; None in rows without the column.

        Raises:
            UserError: no row has one of the columns.
        """
        sources = [self.convert.mapping.get(column, column) for column in columns]
        values, names = {}, dict[str, None]()
        for number in self.indices:
            row = self.raw.row(self.raw.dataset[number])
            names |= dict.fromkeys(map(str, row))
            values[number] = tuple(row.get(source) for source in sources)
        for source in sources:
            if source not in names:
                raise UserError(
                    f"The data set has no column {source!r}; it has {', '.join(names)}.{nearest(source, names)}"
                )
        return values

    def checked(self, row: Row) -> Row:
        """Return a converted row with its prompt as messages and its answer in a form that the grader reads.

        Raises:
            BadRow: a value would train the policy on a wrong answer or prompt.
        """
        row = dict(row)
        if row.get("options"):
            check_options(row["options"])
        if "answer" in self.needed:
            row["answer"] = clean_answer(row)
        if "response" in self.needed:
            check_response(row["response"], self.special_tokens)
        check_columns_of_media(row)
        if not isinstance(row["prompt"], str):
            check_messages(row["prompt"])
            check_media_of_blocks(row["prompt"], row)
            row |= _limits_of_images(row["prompt"])
        videos = row.get("videos") or []
        if self.for_text_policy and (row["images"] or videos):
            media = "images" if row["images"] else "videos"
            raise BadRow("image", f"the row has {media}, but the policy is text-only")
        if videos and self.no_videos:
            raise BadRow("video", f"the row has videos, but {self.no_videos}")
        try:
            row["prompt"] = build_messages(row["prompt"], len(row["images"]), self.system_prompt, len(videos))
        except UserError as error:
            raise BadRow("image places", str(error)) from None
        except MALFORMED as error:
            raise BadRow("prompt", f"{type(error).__name__}: {error}") from None
        texts = [message["content"] for message in flatten_text(row["prompt"])]
        check_text("\n".join(texts), bool(row["images"] or videos), VISION_TOKENS, self.special_tokens)
        check_question(texts[-1])
        return row

    def load(self, number: int, cache: MediaCache | None = None) -> Row:
        """Return a row with decoded images. Rows of a batch share a cache, so that repeated rows are decoded once.

        Raises:
            BadRow: the row cannot be used.
        """
        row = self.parse(number)
        cache = {} if cache is None else cache
        row["row_number"] = number
        row["image_paths"] = [
            value if isinstance(value, str) and len(value) < MAX_PATH_LENGTH else None for value in row["images"]
        ]
        limits = row.pop("image_limits", None) or [{}] * len(row["images"])
        for position, value in enumerate(row["images"]):
            key = ("image", number, position)
            if key not in cache:
                image = limited(open_image(value, self.rules), limits[position], self.patch_size)
                cache[key] = shrink(image, self.pixel_limits.get(number))
            row["images"][position] = cache[key]
        if row.get("videos"):
            self._open_videos(row, number, cache)
        return row

    def media_sizes(self, row: Row, decode: bool = False) -> list[tuple[int, int]]:
        """Open the videos of a parsed row, and return the sizes of its images.

        Args:
            decode: decode the images, too; else only their headers are read.

        Raises:
            BadRow: an image or a video cannot be used.
        """
        if row.get("videos"):
            row["videos"] = [open_video(value, self.video_rules) for value in row["videos"]]
        limits = row.get("image_limits") or [{}] * len(row["images"])
        sizes = [
            open_image(image, self.rules).size if decode else image_size(image, self.rules) for image in row["images"]
        ]
        return [limited_size(size, limit, self.patch_size) for size, limit in zip(sizes, limits, strict=True)]

    def _open_videos(self, row: Row, number: int, cache: MediaCache) -> None:
        """Replace the videos of a row by their frames, in the column and in the prompt."""
        row["video_names"] = [name_of_video(value) for value in row["videos"]]
        for position, value in enumerate(row["videos"]):
            key = ("video", number, position)
            if key not in cache:
                cache[key] = open_video(value, self.video_rules)
            row["videos"][position] = cache[key]
        row["prompt"] = with_videos(row["prompt"], row["videos"])

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[object]]:
        cache: MediaCache = {}
        rows = [self._load_or_replace(number, cache) for number in batch["number"]]
        names = dict.fromkeys(name for row in rows for name in row if row[name] is not None)
        return {name: [row.get(name) for row in rows] for name in names}

    def _load_or_replace(self, number: int, cache: MediaCache) -> Row:
        """Return a row, or its replacement with the key `replaced_row` if the row is bad.

        A bad row always has the same replacement, so that all rows of a GRPO group have the same prompt.
        """
        size, first_error = len(self.indices), ""
        stride = next(step for step in REPLACEMENT_STRIDES if math.gcd(step, size) == 1)
        start = bisect.bisect_left(self.indices, number)
        for step in range(size):
            candidate = self.indices[(start + step * stride) % size]
            try:
                row = self.load(candidate, cache)
            except BadRow as error:
                first_error = first_error or f"row {candidate}: {error}"
                self.bad_rows.record(candidate, error)
                continue
            self.bad_rows.record(candidate, None)
            return row | {"replaced_row": first_error} if first_error else row
        raise UserError(
            f"No row of the dataset can be used; {first_error}. `rlfr check-data` lists the errors of all rows."
        )


def video_rules(options: DataOptions, images: ImageRules) -> VideoRules:
    """Return how frames are drawn, as the options say."""
    return VideoRules(images, options.video_fps, options.video_max_frames, options.video_max_pixels)


def _limits_of_images(messages: Any) -> dict[str, list[SizeLimits]]:
    """Return the limits on the sizes of the images of blocks as a column; nothing where no block has any."""
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    limits = [limits_of(block) for content in contents for block in content if block["type"] == "image"]
    return {"image_limits": limits} if any(limits) else {}


def image_rules(options: DataOptions, media_root: Path | None) -> ImageRules:
    """Return the limits on images in the options."""
    root = Path(options.media_root) if options.media_root else media_root
    return ImageRules(root, max_pixels=options.image_pixel_ceiling)


def read_rows(options: DataOptions, needed: Sequence[str] = ("prompt",), seed: int = 0) -> Rows:
    """Read the data set of the options. Its rows are converted later, when they are used.

    Args:
        options: data set, split, and rules for rows and images.
        needed: columns that every row must have.
        seed: seed of the rows of embedded tasks.

    Raises:
        UserError: the data set or split does not exist, has no rows, or its first rows lack a needed column.
    """
    name, split = options.dataset_name, options.dataset_split
    if options.dataset_limit is not None and options.dataset_limit < 1:
        raise UserError(f"dataset_limit is {options.dataset_limit}; it is a number of rows, at least 1.")
    if not name:
        tasks = ", ".join(EMBEDDED_TASKS)
        raise UserError(
            f"dataset_name is not set. Give a file, a folder, a hub id, {PREFIX}TASK or a built-in task: {tasks}."
        )
    if name in EMBEDDED:
        if split not in SPLITS:
            raise UserError(
                f"{name} has no split {split!r}; it has {' and '.join(SPLITS)}. Set dataset_split to one of them."
            )
        raw = RawDataset(keep_encoded(EMBEDDED[name](split, options.dataset_limit or 4096, seed)), None)
    elif is_gym_name(name):
        raw = RawDataset(_gym_dataset(options, needed, seed), None)
    else:
        raw = read_dataset(name, split, options.dataset_revision, options.dataset_config)
        if options.dataset_limit is not None:
            raw.dataset = raw.dataset.select(range(min(options.dataset_limit, len(raw.dataset))))
    if len(raw.dataset) == 0:
        raise UserError(f"Dataset {name} (split {split}) has no rows.")
    rows = Rows(raw, options, needed)
    _check_first_rows(rows, name)
    return rows


def is_made_here(name: str) -> bool:
    """Whether the rows of a data set are made on this machine, from no files."""
    return name in EMBEDDED or is_gym_name(name)


def _gym_dataset(options: DataOptions, needed: Sequence[str], seed: int) -> "Dataset":
    """Return the rows of a reasoning-gym task.

    Raises:
        UserError: responses are needed, or the rows cannot be generated.
    """
    from datasets import Dataset

    name = options.dataset_name
    if "response" in needed:
        raise UserError(
            f"{name} has no expert responses: tasks of reasoning-gym have questions and answers alone. Draw responses "
            f"with `rlfr sample --data '{name}'`, and give the file that it writes."
        )
    rows = generate(name, options.dataset_split, options.dataset_limit, seed)
    return Dataset.from_dict({TEXT_COLUMN: [json.dumps(row) for row in rows]})  # an answer may look like a list


def _check_first_rows(rows: Rows, name: str) -> None:
    """Raise an error if none of the first rows has a needed column, which is a mistake in the configuration."""
    stored: dict[str, None] = {}
    converted: set[str] = set()
    for number in range(min(FIRST_ROWS, len(rows.raw.dataset))):
        try:
            raw = rows.raw.row(rows.raw.dataset[number])
            stored |= dict.fromkeys(map(str, raw))
            converted |= set(rows.convert(raw))
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
        if column not in converted and column not in stored:
            raise UserError(
                f"Dataset {name} has no column {column!r}; it has {', '.join(stored)}.{nearest(column, stored)} Map "
                f"it with dataset_columns: [{column}=...], or choose another dataset."
            )


def as_dataset(rows: Rows, keep: Sequence[int] | None = None) -> "Dataset":
    """Return a dataset that converts rows when they are read. `keep` selects row numbers."""
    import datasets

    if keep is not None:
        rows.indices = sorted(keep)
    return datasets.Dataset.from_dict({"number": list(rows.indices)}).with_transform(rows)


def load_rows(
    name: str,
    *,
    columns: Sequence[str] = ("prompt",),
    seed: int = 0,
    split: str = "train",
    limit: int | None = None,
    revision: str | None = None,
    system_prompt: str | None = None,
    **options: Any,
) -> "Dataset":
    """Load a data set for training.

    Args:
        name: a file, a folder, a hub id or a built-in task (`EMBEDDED_TASKS` of options.py).
        columns: columns that every row must have.
        seed: seed of the rows of embedded tasks.
        split: split of the data set.
        limit: number of rows to use; None uses all.
        revision: revision of a hub data set.
        system_prompt: system message to add to every prompt.
        options: other fields of `DataOptions`.

    Raises:
        UserError: the data set, the split or a column does not exist.
    """
    data_options = DataOptions(
        dataset_name=name,
        dataset_split=split,
        dataset_limit=limit,
        dataset_revision=revision,
        system_prompt=system_prompt,
        **options,
    )
    return as_dataset(read_rows(data_options, columns, seed))
