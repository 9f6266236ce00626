"""Entries of reasoning-gym as JSON text: the task, its options, and the entry with its metadata.

Scorers compare tuples and look keys up that are numbers, neither of which JSON has; both are marked. So a row is
scored alike in a run, in a file of `rlfr sample`, and when a run is resumed.
"""

import json
from collections.abc import Mapping
from typing import Any

TUPLE, ITEMS, SET = "$tuple", "$items", "$set"


def pack(task: str, options: Mapping[str, str], entry: Mapping[str, Any]) -> str:
    """Return what the scorer of a row needs, as text."""
    return json.dumps({"task": task, "options": dict(options), "entry": _plain(dict(entry))}, ensure_ascii=False)


def unpack(text: str) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return task, options and entry of a text that `pack` wrote.

    Raises:
        ValueError: the text is no such entry.
    """
    try:
        stored = json.loads(text)
        task, options, entry = stored["task"], stored["options"], _restored(stored["entry"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no entry of reasoning-gym: {type(error).__name__}: {error}") from None
    texts = [task, *options, *options.values()] if isinstance(options, dict) else [None]
    if not all(isinstance(part, str) for part in texts) or not isinstance(entry, dict) or "answer" not in entry:
        raise ValueError("no entry of reasoning-gym")
    return task, options, entry


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return {TUPLE: [_plain(part) for part in value]}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return {SET: sorted((_plain(part) for part in value), key=json.dumps)}
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {str(key): _plain(part) for key, part in value.items()}
        return {ITEMS: [[_plain(key), _plain(part)] for key, part in value.items()]}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "tolist"):  # numbers and arrays of numpy
        return _plain(value.tolist())
    return str(value)  # fractions and dates, which no scorer reads


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if not isinstance(value, dict):
        return value
    if TUPLE in value:
        return tuple(_restored(part) for part in value[TUPLE])
    if SET in value:
        return {_restored(part) for part in value[SET]}
    if ITEMS in value:
        return {_restored(key): _restored(part) for key, part in value[ITEMS]}
    return {key: _restored(part) for key, part in value.items()}
