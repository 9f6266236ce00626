"""The reference-probability reward of RLPR (arXiv 2506.18254): no verifier, only the policy's own probabilities.

r is the mean probability of the reference answer's tokens when the response's own answer is replaced by the
reference; r' the same with no reasoning before it, under the initial policy. What the reasoning added is rewarded:
(1 - f) * clip(r - r', 0, 1) + f * format. The text side is here; the trainer computes the probabilities
(rlfr_vlm/trainer/signals/reference_probability.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import gold_list
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.completion import completion_text
from rlfr_vlm.rewards.format import R1_NOTHINK_TAGS, R1_TAGS, boxed, has_tags_in_order, r1, r1_nothink
from rlfr_vlm.rewards.repetition import is_repetitive

REPETITION_PENALTY = -1.0


@dataclass(frozen=True)
class Template:
    """How a response marks its answer.

    Attributes:
        opening: must each stand exactly once, in this order; the answer follows the last one.
        closing: is put behind the reference.
        space: stands before the reference where the response has no white space of its own.
        unreasoned: stands before the answer when there is no reasoning.
        has_format: the format reward's question.
    """

    opening: tuple[str, ...]
    closing: str
    space: str
    unreasoned: str
    has_format: Callable[[str], bool]


TEMPLATES = {
    "r1": Template(R1_TAGS[:3], " </answer>", " ", "<think> </think> <answer>", r1),
    "r1_nothink": Template(R1_NOTHINK_TAGS[:1], " </answer>", " ", "<answer>", r1_nothink),
    "boxed": Template(("\\boxed{",), "}", "", "\\boxed{", boxed),  # ours, for policies that box their answers
}


@dataclass(frozen=True)
class Spliced:
    """A text and where in it (characters) the reference answer stands."""

    text: str
    start: int
    end: int


def splice(response: str, reference: str, mode: str) -> Spliced | None:
    """The response with its own answer replaced by the reference; None for a response that is not valid.

    Valid is exactly one of each opening tag, in order, with something behind the last. The response's own white space
    behind it is kept.

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
    """The reference in the same template, right after the prompt, with no reasoning."""
    template = TEMPLATES[mode]
    return join(template.unreasoned, reference, template.space, template.closing)


def join(head: str, reference: str, space: str, closing: str) -> Spliced:
    """Head, white space, reference, closing tag."""
    before = head + space
    return Spliced(before + reference + closing, len(before), len(before) + len(reference))


def overlapping(offsets: Sequence[tuple[int, int]], start: int, end: int) -> list[bool]:
    """Which tokens (character spans) overlap [start, end). A token fused with the space before it does.

    >>> overlapping([(0, 8), (8, 10), (10, 11), (11, 12)], 9, 11)
    [False, True, True, False]
    """
    return [a < end and b > start for a, b in offsets]


def mix(probability: float, baseline: float, has_format: bool, format_weight: float) -> float:
    """(1 - f) * clip(r - r', 0, 1) + f * format.

    >>> round(mix(0.75, 0.25, True, 0.1), 6), mix(0.2, 0.9, False, 0.1)
    (0.55, 0.0)
    """
    return (1 - format_weight) * min(1.0, max(0.0, probability - baseline)) + format_weight * has_format


class AnswerProbabilities(Protocol):
    """What the trainer offers to the reward."""

    def current(self, rows: Sequence[dict[str, Any]], texts: Sequence[Spliced | None]) -> list[float]:
        """Mean probability of each reference under the policy as it is; 0 where there is no text."""

    def baseline(self, rows: Sequence[dict[str, Any]], references: Sequence[str]) -> list[float]:
        """Mean probability of each reference, unreasoned, under the initial policy."""


class ReferenceProbability:
    """The reward function. The trainer binds it to its policy; until then it cannot be called."""

    def __init__(self, options: RewardOptions) -> None:
        self.options = options
        self.probabilities: AnswerProbabilities | None = None
        self.__name__ = "reference_probability"
        if options.rlpr_mode not in TEMPLATES:
            raise UserError(f"rlpr_mode is {options.rlpr_mode!r}; choose one of {', '.join(TEMPLATES)}.")
        if not 0 <= options.rlpr_format_weight <= 1:
            raise UserError(f"rlpr_format_weight is {options.rlpr_format_weight}; it is a share between 0 and 1.")

    def __call__(
        self, prompts: list[Any], completions: list[Any], answer: list[Any], **kwargs: Any
    ) -> list[float | None]:
        if self.probabilities is None:
            raise UserError("The reward reference_probability needs a trainer: it asks the policy itself.")
        mode, weight = self.options.rlpr_mode, self.options.rlpr_format_weight
        images = kwargs.get("images") or [None] * len(prompts)
        rows = [{"prompt": prompt, "images": own} for prompt, own in zip(prompts, images, strict=True)]
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
