"""Repetition penalty: -1 if a window of words occurs many times. Takes time linear in the length of the response."""

from collections import Counter
from collections.abc import Sequence

from rlfr_vlm.rewards.completion import Completion, completion_text

WINDOW = 10  # words
MAX_COUNT = 10  # occurrences of a window from which a response is repetitive


def is_repetitive(text: str, window: int = WINDOW, max_count: int = MAX_COUNT) -> bool:
    """Return whether some run of `window` words occurs at least `max_count` times.

    Source: RLPR (arXiv 2506.18254), released code.

    >>> is_repetitive("so " * 19), is_repetitive("so " * 18)
    (True, False)
    """
    words = text.lower().split()
    counts = Counter(zip(*(words[start:] for start in range(window)), strict=False))
    return max(counts.values(), default=0) >= max_count


def repetition(completions: Sequence[Completion], **kwargs: object) -> list[float | None]:
    """Return -1 for each repetitive response, else 0.

    >>> repetition(completions=["7", "so " * 19])
    [0.0, -1.0]
    """
    return [-1.0 if is_repetitive(completion_text(completion)) else 0.0 for completion in completions]
