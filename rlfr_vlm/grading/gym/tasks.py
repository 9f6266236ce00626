"""Open a task of reasoning-gym with checked options. Only processes that generate rows or score answers import it.

Names and options of tasks are the library's; each option has the type of a field of the task's configuration, whose
own check says which values go together.
"""

import dataclasses
import json
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading.gym.names import PREFIX, SIZE

# Tasks whose scores train nothing, in reasoning-gym 0.1.25.
REFUSED = {
    "composite": "it mixes other tasks, and its options are no plain values; name one of them",
    "game_of_life_halting": "its scorer takes any answer for right",
}
SCALARS: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int), str: (str,)}
KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def open_task(task: str, options: Mapping[str, str], *, seed: int, size: int) -> Any:
    """Return the library's data set of a task.

    Args:
        options: texts of the task's options.
        seed: entry number i follows from `seed` + i.

    Raises:
        UserError: there is no such task or option, or the task refuses a value.
    """
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise UserError(
            f"reasoning-gym has no task {task!r}.{nearest(task, DATASETS)} Its gallery lists all {len(DATASETS)}: "
            "https://github.com/open-thought/reasoning-gym/blob/main/GALLERY.md"
        )
    if task in REFUSED:
        raise UserError(f"{PREFIX}{task} is not offered: {REFUSED[task]}.")
    dataset_class, config_class = DATASETS[task]
    values = read_options(task, options, config_class)
    try:
        config = config_class(**values, seed=seed, size=size)
        if hasattr(config, "validate"):
            config.validate()
        return dataset_class(config=config)
    except (AssertionError, ValueError, TypeError, KeyError, OSError) as error:
        given = ", ".join(f"{name}={value}" for name, value in options.items()) or f"its defaults, {SIZE} {size}"
        raise UserError(f"{PREFIX}{task} refuses {given}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return the message of a failed check, or its source line where it has none."""
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return f"{str(error) or line.removeprefix('assert ') or type(error).__name__}."


def read_options(task: str, options: Mapping[str, str], config_class: type) -> dict[str, object]:
    """Return the values of options by the types of the task's configuration.

    Raises:
        UserError: an option is unknown, or its text is no value of its type.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    known = [name for name in fields if name not in ("seed", SIZE)]
    kinds = typing.get_type_hints(config_class)
    values = {}
    for name, text in options.items():
        if name == "seed":
            raise UserError(f"{PREFIX}{task} takes no option seed: its rows follow from the split and the run's seed.")
        if name not in known:
            defaults = ", ".join(f"{key}={_default(fields[key])}" for key in known) or "none"
            raise UserError(
                f"{PREFIX}{task} has no option {name!r}.{nearest(name, known)} Its options, with defaults: {defaults}."
            )
        try:
            values[name] = read_value(text, kinds[name])
        except ValueError as error:
            raise UserError(f"{PREFIX}{task}: {name} is {text!r}; it must be {error}.") from None
    return values


def _default(field: Any) -> str:
    value = field.default_factory() if callable(field.default_factory) else field.default
    return json.dumps(value, default=str)


def read_value(text: str, kind: Any) -> object:
    """Return the value that a text stands for.

    Args:
        kind: type of the field: a scalar, an optional one, a literal, or a list or tuple of scalars.

    Raises:
        ValueError: it is none; the message says what it must be.

    >>> read_value("2", int), read_value("+", str), read_value('["+", "-"]', tuple[str, ...]), read_value("0.5", float)
    (2, '+', ('+', '-'), 0.5)
    """
    if kind is str:
        return text
    parts = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if origin in (typing.Union, types.UnionType) and len(parts) == 2 and types.NoneType in parts:
        return None if text == "null" else read_value(text, next(part for part in parts if part is not types.NoneType))
    if origin is typing.Literal:
        if text not in parts:
            raise ValueError(f"one of {', '.join(map(str, parts))}")
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if kind in SCALARS:
        if not _is(value, kind):
            raise ValueError(KIND_NAMES[kind])
        return float(value) if kind is float else value
    if origin in (list, tuple, Sequence):
        element = parts[0] if parts else None
        if element is not None and element not in SCALARS:
            raise ValueError("left at its default: it is no plain value")
        if not isinstance(value, list) or not all(_is(part, element) for part in value):
            raise ValueError('a list in JSON, such as ["+", "-"]' if element is str else "a list in JSON")
        return tuple(value) if origin is tuple else value
    raise ValueError("left at its default: it is no plain value")


def _is(value: object, kind: type | None) -> bool:
    """Whether a JSON value has a scalar type; None stands for any of them."""
    return type(value) in (SCALARS[kind] if kind else SCALARS)
