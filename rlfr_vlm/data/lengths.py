"""How many tokens a prompt will have, by arithmetic on text and image sizes; what to do with those that are too long.

A prompt that holds images is never truncated: cutting through image tokens leaves tokens and features that do not
match. Too long prompts are dropped, their images made smaller, or the run does not start; the counts are shown.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from rlfr_vlm.data.encode import render_prompt, tokenizer_of
from rlfr_vlm.data.images import image_size
from rlfr_vlm.data.load import Rows, shrunk_size
from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of_processor
from rlfr_vlm.models.family import ImageGrid
from rlfr_vlm.options import LONG_PROMPT_RULES


@dataclass
class TokenCounter:
    """Counts the tokens of rows for one processor."""

    processing_class: Any
    grid: ImageGrid | None = field(init=False)

    def __post_init__(self) -> None:
        self.grid = family_of_processor(self.processing_class).image_grid(self.processing_class)

    def text(self, rows: Sequence[Row]) -> list[int]:
        """Tokens of each prompt's text, its image places not among them."""
        if not rows:
            return []
        texts = [render_prompt(self.processing_class, row["prompt"]) for row in rows]
        ids = tokenizer_of(self.processing_class)(texts, add_special_tokens=False)["input_ids"]
        return [len(own) - len(row["images"]) for own, row in zip(ids, rows, strict=True)]

    def images(self, sizes: Sequence[tuple[int, int]]) -> int:
        """Tokens of images of these sizes (width, height)."""
        return sum(self.grid.tokens(*size) for size in sizes) if self.grid else 0

    def count(self, rows: Sequence[Row], sizes: Sequence[Sequence[tuple[int, int]]]) -> list[int]:
        """Tokens of whole prompts, as the processor will make them."""
        return [text + self.images(own) for text, own in zip(self.text(rows), sizes, strict=True)]

    def pixels_that_fit(self, text: int, sizes: Sequence[tuple[int, int]], limit: int) -> int | None:
        """The most pixels per image with which a row fits into `limit` tokens; None when it never does."""
        if self.grid is None or not sizes:
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
            return text + self.images([shrunk_size(size, pixels) for size in sizes]) <= limit
        except ValueError:  # a thin image became too thin for the processor
            return False


@dataclass
class LengthPlan:
    """What becomes of each row: numbers kept, pixel limits of those made smaller, and how many of each."""

    kept: list[int] = field(default_factory=list)
    pixel_limits: dict[int, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.items()) or "nothing"


def plan_lengths(rows: Rows, processing_class: Any, limit: int, rule: str, batch_size: int = 256) -> LengthPlan:
    """Decide before training which prompts are used, and how.

    Bad rows stay in: they are replaced, and counted, when they are read.

    Raises:
        UserError: an unknown rule, `stop` and a prompt is too long, or no prompt fits.
    """
    if rule not in LONG_PROMPT_RULES:
        raise UserError(f"long_prompts is {rule!r}; choose one of {', '.join(LONG_PROMPT_RULES)}.")
    counter, plan = TokenCounter(processing_class), LengthPlan()
    numbers = range(len(rows.raw.dataset))
    for start in tqdm(range(0, len(numbers), batch_size), desc="prompt lengths", unit="batch", leave=False):
        described = [(number, *_sized(rows, number)) for number in numbers[start : start + batch_size]]
        plan.kept += [number for number, row, _ in described if row is None]
        good = [(number, row, sizes) for number, row, sizes in described if row is not None]
        texts = counter.text([row for _, row, _ in good])
        for (number, _, sizes), text in zip(good, texts, strict=True):
            _place(plan, counter, number, text, sizes, limit, rule)
    plan.kept.sort()
    if not plan.kept:
        raise UserError(f"All prompts are longer than max_prompt_tokens {limit}. Raise it, or lower image_max_pixels.")
    return plan


def _place(plan: LengthPlan, counter: TokenCounter, number: int, text: int, sizes: Any, limit: int, rule: str) -> None:
    total = text + counter.images(sizes)
    if total <= limit:
        plan.counts["within the limit"] += 1
        plan.kept.append(number)
        return
    if rule == "stop":
        raise UserError(
            f"Row {number} has {total} prompt tokens, more than max_prompt_tokens {limit}. Raise it, set "
            "long_prompts: drop or downscale, or lower image_max_pixels."
        )
    pixels = counter.pixels_that_fit(text, sizes, limit) if rule == "downscale" else None
    if pixels is None:
        plan.counts["dropped"] += 1
        return
    plan.counts["downscaled"] += 1
    plan.kept.append(number)
    plan.pixel_limits[number] = pixels


def _sized(rows: Rows, number: int) -> tuple[Row | None, list[tuple[int, int]]]:
    """A row and the sizes of its images, read from their headers; None for a bad row."""
    try:
        row = rows.described(number)
        return row, [image_size(image, rows.rules) for image in row["images"]]
    except BadRow:
        return None, []
