"""Repetition penalty: a window of words that comes back again and again. Linear in the length of the response."""

from collections import Counter
from typing import Any

from rlfr_vlm.rewards.completion import completion_text

WINDOW = 10
MOST = 10


def is_repetitive(text: str, window: int = WINDOW, most: int = MOST) -> bool:
    """Whether some run of `window` words occurs at least `most` times. Source: RLPR (arXiv 2506.18254), released code.

    >>> is_repetitive("so " * 19), is_repetitive("so " * 18)
    (True, False)
    """
    words = text.lower().split()
    counts = Counter(zip(*(words[start:] for start in range(window)), strict=False))
    return max(counts.values(), default=0) >= most


def repetition(completions: list[Any], **kwargs: Any) -> list[float | None]:
    """-1 for a repetitive response, else 0.

    >>> repetition(completions=["7", "so " * 19])
    [0.0, -1.0]
    """
    return [-1.0 if is_repetitive(completion_text(completion)) else 0.0 for completion in completions]
