"""Format rewards: 1 if the response has the required format, else 0, whether or not its answer is right."""

import re
from collections.abc import Callable, Sequence

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import last_boxed
from rlfr_vlm.rewards.completion import Completion, completion_text

R1_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
R1_NOTHINK_TAGS = ("<answer>", "</answer>")


def has_tags_in_order(text: str, tags: tuple[str, ...]) -> bool:
    """Return whether each tag occurs exactly once, in this order.

    >>> has_tags_in_order("<think>a</think><answer>7</answer>", R1_TAGS)
    True
    >>> has_tags_in_order("<answer>7", R1_NOTHINK_TAGS)
    False
    """
    positions = [text.find(tag) for tag in tags]
    return all(text.count(tag) == 1 for tag in tags) and positions == sorted(positions)


def has_box(text: str) -> bool:
    """Return whether the text has a non-empty boxed answer."""
    return bool(last_boxed(text))


def has_r1_format(text: str) -> bool:
    """Return whether the text has the tags `<think>...</think><answer>...</answer>`, each once."""
    return has_tags_in_order(text, R1_TAGS)


def has_r1_nothink_format(text: str) -> bool:
    """Return whether the text has the tags `<answer>...</answer>`, each once."""
    return has_tags_in_order(text, R1_NOTHINK_TAGS)


FORMATS: dict[str, Callable[[str], bool]] = {
    "boxed": has_box,
    "r1": has_r1_format,
    "r1_nothink": has_r1_nothink_format,
}


def pattern_format(pattern: str) -> Callable[[str], bool]:
    """Return a format check: a regular expression must match the full response.

    Raises:
        UserError: the regular expression is invalid.
    """
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise UserError(f"format_pattern {pattern!r} is not a regular expression: {error}.") from None
    return lambda text: compiled.fullmatch(text) is not None


def format_reward(has_format: Callable[[str], bool], name: str) -> Callable[..., list[float | None]]:
    """Return a reward function that gives 1 to responses with the format, else 0.

    >>> format_reward(has_box, "format_boxed")(completions=[r"\\boxed{7}", "7"])
    [1.0, 0.0]
    """

    def reward(completions: Sequence[Completion], **kwargs: object) -> list[float | None]:
        return [float(has_format(completion_text(completion))) for completion in completions]

    reward.__name__ = name
    return reward
