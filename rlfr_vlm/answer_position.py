"""Where a response begins to state its answer."""

from collections.abc import Sequence
from typing import Protocol

MARKERS = ("\\boxed", "<answer>")


class Decoder(Protocol):
    """A tokenizer, as far as it is needed here."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Text of token ids."""


def token_before_answer(ids: Sequence[int], tokenizer: Decoder) -> int:
    """Index of the last token that ends before the answer's marker; of the last token if there is no marker.

    The marker is the last `\\boxed` or `<answer>` of the response. A response that begins with it gives 0.
    """
    text = tokenizer.decode(ids, skip_special_tokens=False)
    position = max(text.rfind(marker) for marker in MARKERS)
    if position < 0:
        return max(len(ids) - 1, 0)
    low, high = 0, len(ids)  # decode(ids[:low]) ends at or before the marker, decode(ids[:high]) after it
    while high - low > 1:
        middle = (low + high) // 2
        if len(tokenizer.decode(ids[:middle], skip_special_tokens=False)) <= position:
            low = middle
        else:
            high = middle
    return max(low - 1, 0)
