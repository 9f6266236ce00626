"""Count prompt tokens from text and image sizes before training, and drop or downscale prompts that are too long.

Prompts with images are never truncated, because a cut inside image tokens leaves tokens without matching features.
Prompts that are too long are dropped, their images are downscaled, or the run stops.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tqdm import tqdm

from rlfr_vlm.data.encode import checked_prompt, tokenizer_of, video_arguments
from rlfr_vlm.data.image_sizes import shrunk_size
from rlfr_vlm.data.load import Rows
from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of_processor
from rlfr_vlm.models.image_tokens import ImageGrid
from rlfr_vlm.options import LONG_PROMPT_RULES

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass


VIDEO_ROWS = 64  # that are decoded for the check against the policy's context


@dataclass
class TokenCounter:
    """Counts the prompt tokens of rows for one processor."""

    processing_class: "ProcessingClass"
    grid: ImageGrid | None = field(init=False)

    def __post_init__(self) -> None:
        self.grid = family_of_processor(self.processing_class).image_grid(self.processing_class)

    def text_tokens(self, rows: Sequence[Row], texts: Sequence[str]) -> list[int]:
        """Return the number of text and video tokens of each prompt, without image placeholders.

        Args:
            rows: the rows, with opened videos or their number of tokens (`sized_row`).
            texts: their prompts, of `checked_prompt`.
        """
        if not rows:
            return []
        ids = tokenizer_of(self.processing_class)(list(texts), add_special_tokens=False)["input_ids"]
        counts = [len(row_ids) - len(row["images"]) for row_ids, row in zip(ids, rows, strict=True)]
        return [count + self.added_by_videos(row) for count, row in zip(counts, rows, strict=True)]

    def added_by_videos(self, row: Row) -> int:
        """Return by how many tokens the processor lengthens a prompt for the opened videos of its row."""
        if "video_tokens" in row:
            return int(row["video_tokens"])
        videos = row.get("videos") or []
        if not videos:
            return 0
        placeholders = self.processing_class.video_token * len(videos)
        batch = self.processing_class(text=[placeholders], **video_arguments(videos))
        return len(batch["input_ids"][0]) - len(videos)

    def image_tokens(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Return the number of tokens of images with these sizes (width, height)."""
        return self.grid.row_tokens(sizes) if self.grid and sizes else 0

    def prompt_tokens(self, rows: Sequence[Row], sizes: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
        """Return the number of prompt tokens that the processor will produce for each row."""
        texts = self.text_tokens(rows, [checked_prompt(self.processing_class, row) for row in rows])
        return [text + self.image_tokens(row_sizes) for text, row_sizes in zip(texts, sizes, strict=True)]

    def pixels_that_fit(self, text: int, sizes: Sequence[tuple[int, int]], limit: int) -> int | None:
        """Return the largest number of pixels per image that fits a row into `limit` tokens; None if none does."""
        if self.grid is None or not sizes or not self.grid.shrinks:
            return None
        side = self.grid.side**2
        low, high = max(1, math.ceil(self.grid.min_pixels / side)), limit - text
        best = None
        while low <= high:
            middle = (low + high) // 2
            if self._fits(text, sizes, limit, middle * side):
                best, low = middle * side, middle + 1
            else:
                high = middle - 1
        return best

    def _fits(self, text: int, sizes: Sequence[tuple[int, int]], limit: int, pixels: int) -> bool:
        try:
            return text + self.image_tokens([shrunk_size(size, pixels) for size in sizes]) <= limit
        except ValueError:  # a thin image becomes too thin for the processor
            return False


@dataclass
class LengthPlan:
    """Rows to use for training.

    Attributes:
        kept: numbers of the rows to use.
        pixel_limits: for each downscaled row, the largest number of pixels of each image.
        counts: number of rows by outcome.
    """

    kept: list[int] = field(default_factory=list)
    pixel_limits: dict[int, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Return the counts as text for the log."""
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "nothing"


def plan_lengths(
    rows: Rows, processing_class: "ProcessingClass", limit: int, rule: str, batch_size: int = 256
) -> LengthPlan:
    """Choose the rows whose prompts fit into `limit` tokens, before training.

    Bad rows are kept here. They are replaced and counted when they are read.

    Args:
        rows: the data set.
        processing_class: the policy's processor or tokenizer.
        limit: largest number of prompt tokens.
        rule: `drop`, `downscale` or `stop`, for prompts above the limit.
        batch_size: rows to tokenize at a time.

    Raises:
        UserError: the rule is unknown, a prompt is too long with `stop`, no prompt fits, or smaller images would be no
            shorter with `downscale`.
    """
    if rule not in LONG_PROMPT_RULES:
        raise UserError(f"long_prompts is {rule!r}; choose one of {', '.join(LONG_PROMPT_RULES)}.")
    counter, plan = TokenCounter(processing_class), LengthPlan()
    numbers = range(rows.size)
    for start in tqdm(range(0, len(numbers), batch_size), desc="prompt lengths", unit="batch", leave=False):
        batch = {number: sized_row(rows, counter, number) for number in numbers[start : start + batch_size]}
        plan.kept += [number for number, sized in batch.items() if sized is None]
        good = {number: sized for number, sized in batch.items() if sized is not None}
        texts = [text for _, text, _ in good.values()]
        tokens = counter.text_tokens([row for row, _, _ in good.values()], texts)
        for (number, (_, _, sizes)), text in zip(good.items(), tokens, strict=True):
            _plan_row(plan, counter, number, text + rows.added_tokens, sizes, limit, rule, rows.place(number))
    plan.kept.sort()
    if not plan.kept:
        raise UserError(f"All prompts are longer than max_prompt_tokens {limit}. Raise it, or lower image_max_pixels.")
    return plan


def refuse_prompts_beyond_context(
    rows: Rows,
    processing_class: "ProcessingClass",
    context: int | None,
    response: int,
    setting: str = "max_completion_length",
) -> None:
    """Refuse prompts that leave no room for a response in the policy's context, before training.

    A token has at least one byte, so only rows with many bytes or images are tokenized. Videos must be decoded, so
    only the first `VIDEO_ROWS` rows with videos are checked. Bad rows are left to training.

    Args:
        context: tokens of prompt and response together; None if the policy has no limit.
        response: tokens of a response.
        setting: the setting that limits it.

    Raises:
        UserError: a prompt is too long.
    """
    if context is None:
        return
    counter, limit = TokenCounter(processing_class), context - response
    long: dict[int, int] = {}
    opened = 0
    for number in tqdm(rows.indices, desc="longest prompts", unit="row", leave=False, delay=2.0):
        if (sized := sized_row(rows, counter, number, open_videos=opened < VIDEO_ROWS)) is None:
            continue
        row, text, sizes = sized
        images = counter.image_tokens(sizes) + rows.added_tokens
        size = len(text.encode(errors="replace"))
        if (
            size + images + row["video_tokens"] > limit
            and (tokens := counter.text_tokens([row], [text])[0] + images) > limit
        ):
            long[number] = tokens
    if long:
        number = max(long, key=lambda number: long[number])
        raise UserError(
            f"{len(long)} prompts do not fit the policy's context of {context} tokens beside a response of {response} "
            f"({setting}): {rows.place(number)} has {long[number]}. Lower {setting}, or set max_prompt_tokens (to "
            f"{max(limit, 1)}), above which long_prompts decides."
        )


def _plan_row(
    plan: LengthPlan,
    counter: TokenCounter,
    number: int,
    text: int,
    sizes: Sequence[tuple[int, int]],
    limit: int,
    rule: str,
    place: str,
) -> None:
    total, place = text + counter.image_tokens(sizes), place[0].upper() + place[1:]
    if total <= limit:
        plan.counts["within the limit"] += 1
        plan.kept.append(number)
        return
    if rule == "stop":
        raise UserError(
            f"{place} has {total} prompt tokens, more than max_prompt_tokens {limit}. Raise it, set "
            "long_prompts: drop or downscale, or lower image_max_pixels."
        )
    if rule == "downscale" and sizes and counter.grid is not None and not counter.grid.shrinks:
        raise UserError(
            f"{place} has {total} prompt tokens, more than max_prompt_tokens {limit}, and long_prompts "
            f"is downscale, but smaller images are not shorter with {type(counter.processing_class).__name__}. Set "
            "long_prompts: drop or stop, or raise max_prompt_tokens."
        )
    pixels = counter.pixels_that_fit(text, sizes, limit) if rule == "downscale" else None
    if pixels is None:
        plan.counts["dropped"] += 1
        return
    plan.counts["downscaled"] += 1
    plan.kept.append(number)
    plan.pixel_limits[number] = pixels


def sized_row(
    rows: Rows, counter: TokenCounter, number: int, open_videos: bool = True
) -> tuple[Row, str, list[tuple[int, int]]] | None:
    """Return a row with `video_tokens`, its prompt string, and the sizes of its images.

    Returns:
        None for a bad row, and without `open_videos` for a row with videos.
    """
    try:
        row = rows.parse(number)
        if row.get("videos") and not open_videos:
            return None
        text = checked_prompt(counter.processing_class, row)
        sizes = rows.media_sizes(row)
        row["video_tokens"] = counter.added_by_videos(row)
        row["videos"] = []  # decoded frames are large
        return row, text, sizes
    except BadRow:
        return None
