"""Names of data sets as `dataset_name` has them: one, or several sources of a mixture with weights.

A weight is a last part behind a colon that is a number: `a.jsonl:0.7`, `reasoning_gym:chain_sum:0.3`. It is kept as
an exact fraction, so that the order of a mixture's prompts does not depend on rounding.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from rlfr_vlm.errors import UserError


@dataclass(frozen=True)
class Source:
    """A data set of a mixture.

    Attributes:
        name: as a `dataset_name` of its own.
        weight: None where no source has one.
        label: short name, different from those of the other sources; metrics and logs have it.
    """

    name: str
    weight: Fraction | None
    label: str


def sources_of(names: str | Sequence[str]) -> tuple[Source, ...]:
    """Return the data sets of a `dataset_name`.

    Raises:
        UserError: a weight is not above 0, or is missing beside others, or a data set is there twice.

    >>> [(s.name, s.weight, s.label) for s in sources_of(["data/a.jsonl:0.5", "reasoning_gym:chain_sum:2"])]
    [('data/a.jsonl', Fraction(1, 2), 'a'), ('reasoning_gym:chain_sum', Fraction(2, 1), 'chain_sum')]
    >>> sources_of("reasoning_gym:chain_sum")
    (Source(name='reasoning_gym:chain_sum', weight=None, label='chain_sum'),)
    """
    if isinstance(names, str):
        return (Source(names, None, _short_name(names)),)
    pairs = [_split_weight(text) for text in names]
    without = [name for name, weight in pairs if weight is None]
    if 0 < len(without) < len(pairs):
        other = next(name for name, weight in pairs if weight is not None)
        raise UserError(
            f"The source {without[0]} has no weight, and {other} has one. Give all sources a weight, or none: then "
            "they are mixed in proportion to their rows."
        )
    first: dict[str, str] = {}
    for name, _ in pairs:
        if (earlier := first.get(_identity(name))) is not None:
            raise UserError(
                f"The source {name} is there twice{'' if earlier == name else f', also as {earlier}'}. Name it once, "
                "with a larger weight if its rows are to come more often."
            )
        first[_identity(name)] = name
    labels = _different([_short_name(name) for name, _ in pairs])
    return tuple(Source(name, weight, label) for (name, weight), label in zip(pairs, labels, strict=True))


def joined(names: str | Sequence[str]) -> str:
    """Return a `dataset_name` as text for messages.

    >>> joined("digits"), joined(["a.jsonl:0.7", "digits:0.3"])
    ('digits', 'a.jsonl:0.7, digits:0.3')
    """
    return names if isinstance(names, str) else ", ".join(names)


def checked_names(setting: str, names: object) -> str | list[str]:
    """Return the value of a setting such as `dataset_name`: one name as a text, several as a list.

    Raises:
        UserError: it is no text and no list of texts, or its sources contradict each other.
    """
    given = [names] if isinstance(names, str) else names
    if not isinstance(given, list | tuple) or not given or not all(isinstance(name, str) for name in given):
        raise UserError(f"{setting} is {names!r}; it must be the name of a data set, or a list of names.")
    if len(given) == 1:
        name, weight = _split_weight(given[0])
        if weight is not None:
            raise UserError(
                f"{setting} is {given[0]}: a weight needs a second source. Name further sources, or leave out the "
                f"weight: {name}."
            )
        return str(given[0])
    sources_of(given)
    return list(given)


def split_of(name: str, split: str) -> str:
    """Return the split of a source that is read: a file has no splits, and counts as `train`."""
    return "train" if Path(name).expanduser().is_file() else split


def _split_weight(text: str) -> tuple[str, Fraction | None]:
    """Return name and weight. An existing file or folder whose name ends in `:number` has no weight.

    Raises:
        UserError: the weight is 0, negative, infinite or NaN.
    """
    name, colon, last = text.rpartition(":")
    try:
        value = float(last)
    except ValueError:
        return text, None
    if not colon or not name or Path(text).expanduser().exists():
        return text, None
    if not (0 < value < math.inf):
        raise UserError(
            f"The source {name} has the weight {last}; a weight is a number above 0. Leave the source out if it is "
            "not to be drawn from."
        )
    return name, Fraction(last)


def _identity(name: str) -> str:
    """Return what two names of the same files have in common."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def _short_name(name: str) -> str:
    """Return a file's stem, the last part of a hub id, or a task's name.

    >>> _short_name("data/my rows.jsonl"), _short_name("org/MM-Eureka"), _short_name("reasoning_gym:gcd?size=9")
    ('my_rows', 'MM-Eureka', 'gcd')
    """
    last = name.partition("?")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return re.sub(r"[^\w.-]+", "_", re.sub(r"\.[A-Za-z]+$", "", last)) or "source"


def _different(names: Sequence[str]) -> list[str]:
    """Number the names that occur several times.

    >>> _different(["train", "digits", "train", "train_2"])
    ['train', 'digits', 'train_3', 'train_2']
    """
    result: list[str] = []
    for name in names:
        free = (f"{name}_{number}" for number in itertools.count(2) if f"{name}_{number}" not in {*names, *result})
        result.append(next(free) if name in result else name)
    return result
