"""Read the number that stands for a benchmark from the table of VLMEvalKit's own evaluation, in percent.

Its tables differ: percent, fractions, texts such as "99.81%", one row or many. A benchmark's file says what is where;
a shape that it does not describe is an error, never a guess.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlfr_vlm.errors import UserError

UNITS = ("percent", "fraction", "percent text")
WEIGHTED = "weighted by rows"  # a row that stands for the mean of all


def own_percent(
    name: str, score: Mapping[str, str], records: Sequence[Mapping[str, Any]], weights: Mapping[str, int] | None = None
) -> float:
    """The score in percent.

    Args:
        score: `column`, `row` (a value that occurs in the wanted record, or a number: its place) and `unit`.
        records: the table.
        weights: rows of the data set by the value that names a record, for a mean over records.

    Raises:
        UserError: the table has no such place, or what is there is no such number.
    """
    check_place(name, score)
    column, row, unit = score["column"], score["row"], score["unit"]
    if WEIGHTED in row:
        found = [(_number(name, column, unit, one), _weight(one, weights or {})) for one in records]
        total = sum(weight for _, weight in found)
        if not total:
            raise _unknown(name, score, records)
        return sum(value * weight for value, weight in found) / total
    if row.isdigit() and int(row) < len(records):
        return _number(name, column, unit, records[int(row)])
    chosen = [one for one in records if row in map(str, one.values())]
    if len(chosen) != 1 or column not in chosen[0]:
        raise _unknown(name, score, records)
    return _number(name, column, unit, chosen[0])


def check_place(name: str, score: Mapping[str, str]) -> None:
    """Refuse a description of VLMEvalKit's table that leaves open where the score is."""
    if score.get("unit") not in UNITS or not score.get("column") or not score.get("row"):
        raise UserError(
            f"{name}: [score] in its TOML file must say column, row and unit ({', '.join(UNITS)}) of VLMEvalKit's "
            f"result; it is {dict(score)}."
        )


def _weight(record: Mapping[str, Any], weights: Mapping[str, int]) -> int:
    return next((weights[str(value)] for value in record.values() if str(value) in weights), 0)


def _number(name: str, column: str, unit: str, record: Mapping[str, Any]) -> float:
    value = record.get(column)
    if unit == "percent text":
        value = value.removesuffix("%") if isinstance(value, str) and value.endswith("%") else None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = float("nan")
    percent = 100 * number if unit == "fraction" else number
    if not 0 <= percent <= 100:
        raise UserError(f"{name}: VLMEvalKit's {column} is {record.get(column)!r}; a {unit} was expected.")
    return percent


def _unknown(name: str, score: Mapping[str, str], records: Sequence[Mapping[str, Any]]) -> UserError:
    shown = "; ".join(str(dict(one)) for one in records[:3])
    return UserError(f"{name}: VLMEvalKit's result has no place {dict(score)}. It begins: {shown[:500]}")
