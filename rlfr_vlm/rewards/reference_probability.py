"""Reference-probability reward of RLPR (arXiv 2506.18254): the policy's probabilities replace a verifier.

r is the mean probability of the reference answer's tokens after the response's answer is replaced by the reference.
r' is the same without reasoning, under the initial policy. The reward is the gain from reasoning:
(1 - f) * clip(r - r', 0, 1) + f * format. This module builds the texts and combines the terms. The trainer computes
the probabilities (rlfr_vlm/trainer/signals/reference_probability.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlfr_vlm.data.rows import Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Gold, gold_list
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text
from rlfr_vlm.rewards.format import (
    R1_NOTHINK_TAGS,
    R1_TAGS,
    has_box,
    has_r1_format,
    has_r1_nothink_format,
    has_tags_in_order,
)
from rlfr_vlm.rewards.repetition import is_repetitive

REPETITION_PENALTY = -1.0


@dataclass(frozen=True)
class Template:
    """Markup of the answer in a response.

    Attributes:
        opening: tags that must each occur exactly once, in this order; the answer follows the last one.
        closing: text added after the reference.
        space: text added before the reference if the response has no white space there.
        empty_reasoning: text before the reference in a response without reasoning.
        has_format: check of the format reward.
    """

    opening: tuple[str, ...]
    closing: str
    space: str
    empty_reasoning: str
    has_format: Callable[[str], bool]


TEMPLATES = {
    "r1": Template(R1_TAGS[:3], " </answer>", " ", "<think> </think> <answer>", has_r1_format),
    "r1_nothink": Template(R1_NOTHINK_TAGS[:1], " </answer>", " ", "<answer>", has_r1_nothink_format),
    "boxed": Template(("\\boxed{",), "}", "", "\\boxed{", has_box),  # not in RLPR; for policies that box their answers
}


@dataclass(frozen=True)
class Spliced:
    """A text and the character span [start, end) of the reference answer in it."""

    text: str
    start: int
    end: int


def splice(response: str, reference: str, mode: str) -> Spliced | None:
    """Replace the answer of a response by the reference; None for an invalid response.

    A valid response has each opening tag exactly once, in order, and text after the last one. Its white space after
    the last tag is kept.

    >>> splice("2+2 <answer>5</answer>", "4", "r1_nothink")
    Spliced(text='2+2 <answer> 4 </answer>', start=13, end=14)
    >>> splice("<answer>", "4", "r1_nothink") is None
    True
    """
    template = TEMPLATES[mode]
    if not has_tags_in_order(response, template.opening):
        return None
    start = response.find(template.opening[-1]) + len(template.opening[-1])
    rest = response[start:]
    if not rest.strip():
        return None
    space = rest[: len(rest) - len(rest.lstrip())]
    return join(response[:start], reference, space or template.space, template.closing)


def unreasoned(reference: str, mode: str) -> Spliced:
    """Return the reference in the same template, without reasoning."""
    template = TEMPLATES[mode]
    return join(template.empty_reasoning, reference, template.space, template.closing)


def join(head: str, reference: str, space: str, closing: str) -> Spliced:
    """Concatenate head, white space, reference and closing tag."""
    before = head + space
    return Spliced(before + reference + closing, len(before), len(before) + len(reference))


def overlapping(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[bool]:
    """Return for each token span whether it overlaps [start, end). A token may include a leading space.

    >>> overlapping([(0, 8), (8, 10), (10, 11), (11, 12)], 9, 11)
    [False, True, True, False]
    """
    return [a < end and b > start for a, b in offsets]


def mix(probability: float, baseline: float, has_format: bool, format_weight: float) -> float:
    """Return (1 - f) * clip(r - r', 0, 1) + f * format.

    >>> round(mix(0.75, 0.25, True, 0.1), 6), mix(0.2, 0.9, False, 0.1)
    (0.55, 0.0)
    """
    return (1 - format_weight) * min(1.0, max(0.0, probability - baseline)) + format_weight * has_format


class AnswerProbabilities(Protocol):
    """Probabilities that the trainer computes for the reward."""

    def current(self, rows: Sequence[Row], texts: Sequence[Spliced | None]) -> list[float]:
        """Return the mean probability of each reference under the current policy; 0 if the text is None."""

    def baseline(self, rows: Sequence[Row], references: Sequence[str]) -> list[float]:
        """Return the mean probability of each reference without reasoning under the initial policy."""


class ReferenceProbability:
    """The reward function. It can be called after the trainer has set `probabilities`."""

    def __init__(self, options: RewardOptions) -> None:
        self.options = options
        self.probabilities: AnswerProbabilities | None = None
        self.__name__ = "reference_probability"
        if options.rlpr_mode not in TEMPLATES:
            raise UserError(f"rlpr_mode is {options.rlpr_mode!r}; choose one of {', '.join(TEMPLATES)}.")
        if not 0 <= options.rlpr_format_weight <= 1:
            raise UserError(f"rlpr_format_weight is {options.rlpr_format_weight}; set it to a value from 0 to 1.")

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], answer: Sequence[Gold], **kwargs: Any
    ) -> list[float | None]:
        if self.probabilities is None:
            raise UserError(
                "The reward reference_probability needs a trainer, which computes the policy's probabilities."
            )
        mode, weight = self.options.rlpr_mode, self.options.rlpr_format_weight
        images = kwargs.get("images") or [None] * len(prompts)
        pairs = zip(prompts, images, strict=True)
        rows: list[Row] = [{"prompt": prompt, "images": row_images} for prompt, row_images in pairs]
        references = [gold_list(gold)[0].strip() for gold in answer]
        texts = [completion_text(completion) for completion in completions]
        spliced = [splice(text, reference, mode) for text, reference in zip(texts, references, strict=True)]
        r = self.probabilities.current(rows, spliced)
        base = self.probabilities.baseline(rows, references) if self.options.rlpr_debias else [0.0] * len(rows)
        rewards: list[float | None] = []
        for row, text in enumerate(texts):
            value = mix(r[row], base[row], TEMPLATES[mode].has_format(text), weight)
            penalty = REPETITION_PENALTY if self.options.rlpr_repetition_penalty and is_repetitive(text) else 0.0
            rewards.append(value + penalty if references[row] else None)
        if (log_metric := kwargs.get("log_metric")) is not None and rows:
            log_metric("rlpr/probability", sum(r) / len(r))
            log_metric("rlpr/baseline", sum(base) / len(base))
            log_metric("rlpr/valid", sum(text is not None for text in spliced) / len(spliced))
        return rewards
