"""Measure the prompt tokens of a sample of a data set, with the policy's own processor."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_vlm.data.lengths import TokenCounter, sized_row
from rlfr_vlm.data.load import Rows
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass

SAMPLE = 1000  # rows


@dataclass(frozen=True)
class PromptLengths:
    """Prompt tokens of the readable rows of a sample.

    Attributes:
        longest: largest number of tokens.
        mean: mean number of tokens.
        measured: number of rows that were measured.
        rows: number of rows of the data set.
    """

    longest: int
    mean: float
    measured: int
    rows: int


def measure_prompts(rows: Rows, processing_class: "ProcessingClass", sample: int = SAMPLE) -> PromptLengths:
    """Count the prompt tokens of at most `sample` rows, chosen at random with a fixed seed. Images are not decoded.

    Raises:
        UserError: the policy's family is unknown, no row of the sample can be read, or the tokenizer is empty.
    """
    counter, numbers = TokenCounter(processing_class), list(rows.indices)
    chosen = random.Random(0).sample(numbers, min(sample, len(numbers)))
    read = [sized for number in chosen if (sized := sized_row(rows, counter, number)) is not None]
    if not read:
        raise UserError("no row can be read; `rlfr check-data` says why")
    texts = counter.text_tokens([row for row, _, _ in read], [text for _, text, _ in read])
    tokens = [text + counter.image_tokens(sizes) for text, (_, _, sizes) in zip(texts, read, strict=True)]
    if not max(tokens):  # transformers makes an empty tokenizer where a folder has none
        raise UserError("the policy's tokenizer makes no tokens; its files are missing")
    return PromptLengths(max(tokens), sum(tokens) / len(tokens), len(tokens), len(numbers))
