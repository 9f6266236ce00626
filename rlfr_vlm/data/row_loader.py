"""Convert stored rows to the documented format, open their images when they are read, and replace bad rows."""

import bisect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rlfr_vlm.data.answer_checks import check_options, clean_answer
from rlfr_vlm.data.bad_rows import BadRows
from rlfr_vlm.data.encode import is_text_only, special_tokens
from rlfr_vlm.data.image_sizes import SizeLimits, limited, limited_size, limits_of, shrink
from rlfr_vlm.data.images import ImageRules, image_size, open_image
from rlfr_vlm.data.prompts import build_messages, flatten_text, with_videos
from rlfr_vlm.data.read import RawDataset
from rlfr_vlm.data.row_checks import check_columns_of_media, check_media_of_blocks, check_messages
from rlfr_vlm.data.rows import MALFORMED, BadRow, Converter, Row, check_columns, parse_mapping
from rlfr_vlm.data.text_checks import check_question, check_response, check_text
from rlfr_vlm.data.videos import VideoRules, name_of_video, open_video
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.models import VISION_TOKENS, family_of_processor
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass

# Decoded images and videos by kind, row number and position.
MediaCache: TypeAlias = dict[tuple[str, int, int], Any]

REPLACEMENT_STRIDES = (104_729, 7_919, 1)  # primes; coprime to the data set size, so that the search visits every row
DEFAULT_PATCH_SIZE = 14  # of Qwen2-VL and Qwen2.5-VL, where no processor says
MAX_PATH_LENGTH = 300  # characters; a longer text is an embedded image


class Rows:
    """Converts stored rows to the documented format. Used as the transform of a `datasets.Dataset`.

    mixture.py has the rows of several data sets.

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
        source: label of the data set in a mixture; empty where it is the only one.
        added_tokens: tokens that descriptions of tools add to each prompt.
    """

    source: str = ""
    added_tokens: int = 0

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

    @property
    def size(self) -> int:
        """Number of stored rows, in use or not."""
        return len(self.raw.dataset)

    def place(self, number: int) -> str:
        """Name a row in a message."""
        return f"row {number} of {self.source}" if self.source else f"row {number}"

    def rules_of(self, row: Row) -> ImageRules:
        """Return the limits on the images of a converted row, and the folder of their paths."""
        return self.rules

    @property
    def media_folder(self) -> Path:
        """The folder that paths of images and videos start from."""
        return (self.rules.media_root or Path.cwd()).resolve()

    def first(self, count: int) -> Sequence[int]:
        """Numbers of the first rows in use, at most `count`."""
        return self.indices[:count]

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
        rows = self.load_batch(batch["number"])
        names = dict.fromkeys(name for row in rows for name in row if row[name] is not None)
        return {name: [row.get(name) for row in rows] for name in names}

    def load_batch(self, numbers: Sequence[int]) -> list[Row]:
        """Return rows, with the replacements of those that are bad."""
        cache: MediaCache = {}
        return [self._load_or_replace(number, cache) for number in numbers]

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
                first_error = first_error or f"{self.place(candidate)}: {error}"
                self.bad_rows.record(candidate, error, self.place(candidate))
                continue
            self.bad_rows.record(candidate, None)
            return row | {"replaced_row": first_error} if first_error else row
        raise UserError(
            f"No row of {self.source or 'the dataset'} can be used; {first_error}. `rlfr check-data` lists the errors "
            "of all rows."
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
