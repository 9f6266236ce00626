"""Format rewards: does the response have the asked-for shape? 1 or 0, whatever its answer is worth."""

import re
from collections.abc import Callable
from typing import Any

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import last_boxed
from rlfr_vlm.rewards.completion import completion_text

R1_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
R1_NOTHINK_TAGS = ("<answer>", "</answer>")


def has_tags_in_order(text: str, tags: tuple[str, ...]) -> bool:
    """Whether each tag stands exactly once, in this order.

    >>> has_tags_in_order("<think>a</think><answer>7</answer>", R1_TAGS)
    True
    >>> has_tags_in_order("<answer>7", R1_NOTHINK_TAGS)
    False
    """
    positions = [text.find(tag) for tag in tags]
    return all(text.count(tag) == 1 for tag in tags) and positions == sorted(positions)


def boxed(text: str) -> bool:
    """Whether there is a boxed answer."""
    return bool(last_boxed(text))


def r1(text: str) -> bool:
    """`<think>...</think><answer>...</answer>`, each tag once."""
    return has_tags_in_order(text, R1_TAGS)


def r1_nothink(text: str) -> bool:
    """`<answer>...</answer>`, each tag once."""
    return has_tags_in_order(text, R1_NOTHINK_TAGS)


FORMATS: dict[str, Callable[[str], bool]] = {"boxed": boxed, "r1": r1, "r1_nothink": r1_nothink}


def matches(pattern: str) -> Callable[[str], bool]:
    """A format given by a regular expression that the whole response must match.

    Raises:
        UserError: the expression is not valid.
    """
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise UserError(f"format_pattern {pattern!r} is not a regular expression: {error}.") from None
    return lambda text: compiled.fullmatch(text) is not None


def format_reward(has_format: Callable[[str], bool], name: str) -> Callable[..., list[float | None]]:
    """A reward function that gives 1 to responses of that format.

    >>> format_reward(boxed, "format_boxed")(completions=[r"\\boxed{7}", "7"])
    [1.0, 0.0]
    """

    def reward(completions: list[Any], **kwargs: Any) -> list[float | None]:
        return [float(has_format(completion_text(completion))) for completion in completions]

    reward.__name__ = name
    return reward
