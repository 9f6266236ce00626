"""Which logged groups a page shows: whole prompts, spread evenly over the run, the same ones of runs laid over it."""

from collections.abc import Iterator, Sequence
from typing import Any

from rlfr_vlm.report.read_run import LoggedGroup, Run


def thin(groups: Sequence[LoggedGroup], responses: int) -> list[LoggedGroup]:
    """At most so many responses, by whole prompts spread evenly over the run; all sights of a prompt stay together."""
    by_prompt: dict[Any, list[LoggedGroup]] = {}
    for number, group in enumerate(groups):
        by_prompt.setdefault(("row", group.row) if group.row is not None else ("group", number), []).append(group)
    kept: list[LoggedGroup] = []
    count = 0
    for own in _evenly(list(by_prompt.values())):
        size = total_responses(own)
        if count + size <= responses:
            kept, count = kept + own, count + size
    return sorted(kept, key=lambda group: group.step)


def _evenly(items: list[Any]) -> Iterator[Any]:
    """All items, in an order whose every beginning is spread over the list.

    >>> list(_evenly([0, 1, 2, 3, 4]))
    [0, 4, 2, 1, 3]
    """
    width = 1
    while width < len(items):
        width *= 2
    given: set[int] = set()
    while width:
        for place in [*range(0, len(items), width), *([len(items) - 1] if items else [])]:
            if place not in given:
                given.add(place)
                yield items[place]
        width //= 2


def total_responses(groups: Sequence[LoggedGroup]) -> int:
    return sum(group.responses for group in groups)


def choose(runs: Sequence[Run], responses: int) -> list[list[LoggedGroup]]:
    """The groups of each run that a page shows; with several runs, prompts that all of them logged come first."""
    share = responses // max(1, len(runs))
    seen = [{(group.step, group.row) for group in run.groups} for run in runs]
    common = set.intersection(*seen) if seen else set()
    chosen = []
    for run in runs:
        kept = thin([one for one in run.groups if (one.step, one.row) in common], share)
        others = [one for one in run.groups if (one.step, one.row) not in common]
        kept = kept + thin(others, share - total_responses(kept))
        chosen.append(sorted(kept, key=lambda group: group.step))
    return chosen
