"""Choose the logged groups that a page shows.

Prompts are kept or dropped with all their groups and are spread evenly over the run. Of several runs, prompts that all
of them logged are preferred.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rlfr_vlm.report.read_run import LoggedGroup, Run

Item = TypeVar("Item")


def thin_groups(groups: Sequence[LoggedGroup], max_responses: int) -> list[LoggedGroup]:
    """Keep at most `max_responses` responses: prompts spread evenly over the run, each with all its groups."""
    by_prompt: dict[tuple[str, int], list[LoggedGroup]] = {}
    for index, group in enumerate(groups):
        by_prompt.setdefault(("row", group.row) if group.row is not None else ("group", index), []).append(group)
    result: list[LoggedGroup] = []
    count = 0
    for prompt_groups in _evenly_spread(list(by_prompt.values())):
        size = total_responses(prompt_groups)
        if count + size <= max_responses:
            result, count = result + prompt_groups, count + size
    return sorted(result, key=lambda group: group.step)


def _evenly_spread(items: Sequence[Item]) -> Iterator[Item]:
    """Yield all items in an order whose every prefix is spread over the sequence.

    >>> list(_evenly_spread([0, 1, 2, 3, 4]))
    [0, 4, 2, 1, 3]
    """
    width = 1
    while width < len(items):
        width *= 2
    done: set[int] = set()
    while width:
        for index in [*range(0, len(items), width), *([len(items) - 1] if items else [])]:
            if index not in done:
                done.add(index)
                yield items[index]
        width //= 2


def total_responses(groups: Sequence[LoggedGroup]) -> int:
    return sum(group.responses for group in groups)


def choose_groups(runs: Sequence[Run], max_responses: int) -> list[list[LoggedGroup]]:
    """Groups of each run that a page shows; every run gets an equal share, prompts common to all runs first."""
    share = max_responses // max(1, len(runs))
    logged = [{(group.step, group.row) for group in run.groups} for run in runs]
    common = set.intersection(*logged) if logged else set()
    result = []
    for run in runs:
        groups = thin_groups([group for group in run.groups if (group.step, group.row) in common], share)
        rest = [group for group in run.groups if (group.step, group.row) not in common]
        groups = groups + thin_groups(rest, share - total_responses(groups))
        result.append(sorted(groups, key=lambda group: group.step))
    return result
