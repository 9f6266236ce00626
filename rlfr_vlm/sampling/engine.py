"""What an engine of `rlfr sample` takes and gives, and the seed of each response."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlfr_vlm.data.rows import Row

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Attributes:
        temperature: 0 decodes greedily.
        top_p: share of the probability that is sampled from; 1 is all.
        top_k: number of tokens that are sampled from; 0 is all.
        max_new_tokens: limit of a response.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 1024


@dataclass(frozen=True)
class Sample:
    """A response before it is graded.

    Attributes:
        text: the response without special tokens.
        ids: its tokens up to and including the end token; None where the engine does not tell.
        logp: sum of their log-probs at temperature 1, whatever the sampling's temperature, top_p and top_k were; None
            where the engine does not tell. hf normalises without the banned vision tokens, as training does, vllm and
            served vLLM with them.
        truncated: the limit was reached before an end token.
        fault: why there is no response; empty otherwise.
    """

    text: str
    ids: list[int] | None
    logp: float | None
    truncated: bool
    fault: str = ""


class Engine(Protocol):
    """Draws responses.

    Attributes:
        processing_class: the policy's processor or tokenizer; None where only the server has it.
    """

    processing_class: "ProcessingClass | None"

    def sample(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Sample]:
        """Draw one response to each row.

        Args:
            rows: rows with messages and decoded images; a row occurs once for each of its responses.
            seeds: seed of each response.

        Raises:
            UserError: no responses can be drawn.
        """


def seed_of(seed: int, prompt: int, sample: int) -> int:
    """Return the seed of a response, 31 bits that depend on the run's seed and on which response it is.

    >>> seed_of(0, 3, 1) == seed_of(0, 3, 1), seed_of(0, 3, 1) == seed_of(0, 1, 3)
    (True, False)
    """
    digest = hashlib.sha256(f"{seed} {prompt} {sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
