"""Reward from comparisons: a judge says which of two responses to the same prompt is better.

A response meets the next few responses of its group, in a ring. Judges favour a place (arXiv 2306.05685, section 3.3),
so each pair is asked about in both orders, and a pair is decided only if both name the same response. The reward is
the share of its decided pairs that a response won; without a decided pair it is undecided (None).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Verdict
from rlfr_vlm.grading.extract import remove_reasoning
from rlfr_vlm.judging.background import Question
from rlfr_vlm.judging.client import JudgeResult
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text, prompt_text
from rlfr_vlm.rewards.judge_calls import Asked, JudgeCalls


@dataclass
class Pair:
    """Two responses, by their places in the batch, and the judge's answers in both orders."""

    one: int
    two: int
    in_order: Asked
    swapped: Asked


class JudgePairs:
    """The reward function. The judge starts, and is checked with known cases, when the reward is built.

    Args:
        options: opponents of each response, budget, cache, and what happens if the judge is gone.

    Raises:
        UserError: no judge is named, it cannot be reached or fails the check, or an option is invalid.
    """

    def __init__(self, options: RewardOptions) -> None:
        self.__name__ = "judge_pairs"
        if options.judge_opponents < 1:
            raise UserError(f"judge_opponents is {options.judge_opponents}; it must be at least 1.")
        self.opponents = options.judge_opponents
        self.calls = JudgeCalls(options)
        self._begun: tuple[list[str], list[Pair]] | None = None

    def begin(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        rubric: Sequence[str | None] | None = None,
        **columns: Any,
    ) -> None:
        """Ask the judge while the caller goes on; the next call with the same responses takes the results."""
        texts = [completion_text(completion) for completion in completions]
        shown = [remove_reasoning(text)[0].strip() for text in texts]
        tasks = [prompt_text(prompt).strip() for prompt in prompts]
        pairs = []
        for one, two in ring_pairs(group_sizes(keys_of(tasks, columns)), self.opponents):
            if shown[one] == shown[two]:
                continue  # equal responses: neither is better
            about = tasks[one], (rubric[one] if rubric else None) or ""
            asked = [
                self.calls.ask(_which(*about, shown[first], shown[second]))
                for first, second in ((one, two), (two, one))
            ]
            pairs.append(Pair(one, two, *asked))
        self._begun = (texts, pairs)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Return the share of decided pairs that each response won, None without any.

        Raises:
            UserError: the budget is used up, or the judge is gone and `judge_on_failure` is stop.
        """
        if self._begun is None or self._begun[0] != [completion_text(completion) for completion in completions]:
            self.begin(prompts, completions, **columns)
        assert self._begun is not None
        pairs, self._begun = self._begun[1], None
        results = self.calls.results([asked for pair in pairs for asked in (pair.in_order, pair.swapped)])
        self.calls.log(results, len(completions), log_metric)
        outcomes = [winner(*results[2 * number : 2 * number + 2]) for number in range(len(pairs))]
        if log_metric is not None and pairs:
            log_metric("judge/pairs_decided", sum(outcome is not None for outcome in outcomes) / len(pairs))
        return shares_won([(pair.one, pair.two) for pair in pairs], outcomes, len(completions))


def _which(task: str, rubric: str, first: str, second: str) -> Question:
    return lambda judge: judge.compare(task, rubric, first, second)


def winner(in_order: JudgeResult, swapped: JudgeResult) -> int | None:
    """Return 0 if both orders name the first response of the pair, 1 for the second; None if they name no or two."""
    if in_order.verdict is Verdict.UNDECIDED or swapped.verdict is Verdict.UNDECIDED:
        return None
    first = in_order.verdict is Verdict.RIGHT
    return None if first is (swapped.verdict is Verdict.RIGHT) else int(not first)


def shares_won(pairs: Sequence[tuple[int, int]], outcomes: Sequence[int | None], responses: int) -> list[float | None]:
    """Return the share of its decided pairs that each response won, None without any.

    >>> shares_won([(0, 1), (1, 2)], [0, None], 3)
    [1.0, 0.0, None]
    """
    won, decided = [0] * responses, [0] * responses
    for pair, outcome in zip(pairs, outcomes, strict=True):
        if outcome is not None:
            won[pair[outcome]] += 1
            for number in pair:
                decided[number] += 1
    return [wins / count if count else None for wins, count in zip(won, decided, strict=True)]


def keys_of(tasks: Sequence[str], columns: dict[str, Any]) -> list[object]:
    """Return what is equal for responses to the same prompt: the row's number or, without one, prompt and images."""
    if (numbers := columns.get("row_number")) is not None:
        return list(numbers)
    images = columns.get("images") or [None] * len(tasks)
    return [(task, tuple(id(image) for image in row or ())) for task, row in zip(tasks, images, strict=True)]


def group_sizes(keys: Sequence[object]) -> list[int]:
    """Return the lengths of stretches of equal keys.

    >>> group_sizes(["a", "a", "b", "a"])
    [2, 1, 1]
    """
    sizes: list[int] = []
    for number, key in enumerate(keys):
        if number and key == keys[number - 1]:
            sizes[-1] += 1
        else:
            sizes.append(1)
    return sizes


def ring_pairs(sizes: Sequence[int], opponents: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs of each group in a ring: each response with the next `opponents` ones, no pair twice.

    >>> list(ring_pairs([3], 1)), list(ring_pairs([2, 1], 4))
    ([(0, 1), (1, 2), (0, 2)], [(0, 1)])
    """
    start = 0
    for size in sizes:
        pairs = {
            (min(one, two), max(one, two)): None
            for one in range(size)
            for step in range(1, opponents + 1)
            if (two := (one + step) % size) != one
        }
        yield from ((start + one, start + two) for one, two in pairs)
        start += size
