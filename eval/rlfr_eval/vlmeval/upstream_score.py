"""Read a benchmark's score, in percent, from the table that VLMEvalKit's evaluation returns.

The tables differ: percent, fractions, strings such as "99.81%", one row or many. A benchmark's file describes the
location and unit of the score; a table that does not match the description is an error.
"""

from collections.abc import Mapping, Sequence

from rlfr_eval.vlmeval.worker.replay_judge import ROWS
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonMapping

UNITS = ("percent", "fraction", "percent text")
WEIGHTED = "weighted by rows"  # in `row`: the score is the weighted mean over all records


def upstream_percent(
    name: str, score: Mapping[str, str], records: Sequence[JsonMapping], weights: Mapping[str, int] | None = None
) -> float:
    """Return VLMEvalKit's score in percent.

    Args:
        score: `column`, `row` (a value that occurs in the record of the score, or the record's index; `ROWS` for what
            VLMEvalKit wrote beside the rows) and `unit`.
        records: VLMEvalKit's table.
        weights: value that names a record -> rows of the data set, for a mean over records.

    Raises:
        UserError: the table has no such location, or the value there does not have the unit.
    """
    check_score_location(name, score)
    column, row, unit = score["column"], score["row"], score["unit"]
    records = [record for record in records if (record.get("row") == ROWS) is (row == ROWS)]
    if WEIGHTED in row:
        weighted = [(_number(name, column, unit, record), _weight(record, weights or {})) for record in records]
        total = sum(weight for _, weight in weighted)
        if not total:
            raise _unknown_location(name, score, records)
        return sum(value * weight for value, weight in weighted) / total
    if row.isdigit() and int(row) < len(records):
        return _number(name, column, unit, records[int(row)])
    matches = [record for record in records if row in map(str, record.values())]
    if len(matches) != 1 or column not in matches[0]:
        raise _unknown_location(name, score, records)
    return _number(name, column, unit, matches[0])


def check_score_location(name: str, score: Mapping[str, str]) -> None:
    """Raise a UserError if column, row or unit of the score is missing or unknown."""
    if score.get("unit") not in UNITS or not score.get("column") or not score.get("row"):
        raise UserError(
            f"{name}: [score] in its TOML file must say column, row and unit ({', '.join(UNITS)}) of VLMEvalKit's "
            f"result; it is {dict(score)}."
        )


def _weight(record: JsonMapping, weights: Mapping[str, int]) -> int:
    return next((weights[str(value)] for value in record.values() if str(value) in weights), 0)


def _number(name: str, column: str, unit: str, record: JsonMapping) -> float:
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


def _unknown_location(name: str, score: Mapping[str, str], records: Sequence[JsonMapping]) -> UserError:
    start = "; ".join(str(dict(record)) for record in records[:3])
    return UserError(f"{name}: VLMEvalKit's result has no value at {dict(score)}. It begins: {start[:500]}")
