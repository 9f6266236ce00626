"""Parse the axes of a sweep: `--set KEY=A,B` and `--seeds`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from rlfr_vlm.errors import UserError

OPENING, CLOSING, QUOTES = "[{(", "]})", "\"'"


@dataclass(frozen=True)
class Axis:
    """A setting and its values, as they were typed."""

    key: str
    values: tuple[str, ...]


def axes_of(texts: Sequence[str]) -> tuple[Axis, ...]:
    """Parse the values of `--set`.

    Raises:
        UserError: a text is not `KEY=A,B`, a value is empty or no YAML, or a key or value is there twice.

    >>> axes_of(["learning_rate=1e-5,2e-5", "flow_timesteps=[0.2, 0.8],0.8"])[1].values
    ('[0.2, 0.8]', '0.8')
    """
    axes: list[Axis] = []
    for text in texts:
        key, equals, rest = text.partition("=")
        key = key.strip().removeprefix("--").replace("-", "_")
        if not equals or not key:
            raise UserError(f"--set is {text!r}; write it as key=value,value.")
        values = tuple(_values(rest, text))
        if any(axis.key == key for axis in axes):
            raise UserError(f"--set has {key} twice. Give all its values in one: {key}=value,value.")
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise UserError(f"--set has {key}={twice} twice; the runs would be the same.")
        for value in values:
            arguments_of(key, value)
        axes.append(Axis(key, values))
    return tuple(axes)


def arguments_of(key: str, text: str) -> list[str]:
    """Return the arguments of `rlfr train` that set a setting to a value in YAML.

    Raises:
        UserError: the value is no YAML, or an empty list, which no argument can express.

    >>> arguments_of("flow_timesteps", "[0.2, 0.8]"), arguments_of("flow_gate", "off"), arguments_of("top_k", "~")
    (['--flow_timesteps', '0.2', '0.8'], ['--flow_gate', 'off'], ['--top_k', 'null'])
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {key}={text} is not valid YAML: {' '.join(str(error).split())}") from None
    if value == []:
        raise UserError(f"--set {key}={text}: an empty list cannot be set there. Leave {key} out of --set.")
    if value is None:
        return [f"--{key}", "null"]  # which unsets it
    if isinstance(value, list):
        return [f"--{key}", *map(str, value)]
    # numbers and switches as typed: YAML reads `off` as false, and settings such as flow_gate have it as a name
    return [f"--{key}", json.dumps(value) if isinstance(value, dict) else value if isinstance(value, str) else text]


def is_null(text: str) -> bool:
    """Return whether a value is YAML's null."""
    return yaml.safe_load(text) is None


def seeds_of(text: str) -> tuple[int, ...]:
    """Return the seeds: 1 to N for a number, or those of a list with commas.

    Raises:
        UserError: there is no seed, or one is there twice.

    >>> seeds_of("3"), seeds_of("3,7,11"), seeds_of("7,")
    ((1, 2, 3), (3, 7, 11), (7,))
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds is {text!r}; give a number of seeds, such as 5, or a list, such as 3,7,11.")
    numbers = tuple(map(int, parts))
    if "," not in text:
        numbers = tuple(range(1, numbers[0] + 1))
    if not numbers:
        raise UserError(f"--seeds is {text}; give at least 1.")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds is {text!r}, which has a seed twice.")
    return numbers


def _values(rest: str, whole: str) -> Iterator[str]:
    """Split at the commas outside of brackets and quotes."""
    depth, quote, value = 0, "", ""
    for character in rest:
        if quote:
            quote = "" if character == quote else quote
        elif character in QUOTES and value.rstrip()[-1:] in ("", ",", "[", "{", ":"):  # not an apostrophe
            quote = character
        depth += 0 if quote else (character in OPENING) - (character in CLOSING)
        if character == "," and depth == 0 and not quote:
            yield _not_empty(value, whole)
            value = ""
        else:
            value += character
    if depth or quote:
        raise UserError(f"--set {whole}: a bracket or quote is not closed.")
    yield _not_empty(value, whole)


def _not_empty(value: str, whole: str) -> str:
    if not value.strip():
        raise UserError(f"--set {whole} has an empty value. Write it as key=value,value.")
    return value.strip()
