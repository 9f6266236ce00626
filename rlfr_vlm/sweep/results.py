"""Compare methods and settings: means over seeds, and paired differences from the first method."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlfr_vlm.files import JsonObject
from rlfr_vlm.stats import PairedDifference, paired_difference
from rlfr_vlm.sweep.definition import Cell
from rlfr_vlm.sweep.final_values import FinalValues


@dataclass
class Row:
    """A method and setting in the table.

    Attributes:
        quantity: what its values measure; rows of different quantities are not subtracted.
        values: metric -> seed -> value.
        means: metric -> mean over the seeds that have a value; None if none has.
        reference: name of the row that is subtracted; None for the first one.
        differences: metric -> paired difference; None without a pair.
    """

    cell: Cell
    quantity: str
    values: dict[str, dict[int, float | None]]
    means: dict[str, float | None]
    reference: str | None = None
    differences: dict[str, PairedDifference | None] = field(default_factory=dict)

    def to_dict(self) -> JsonObject:
        """Content of `results.json`."""
        return {
            "name": self.cell.name,
            "method": self.cell.method,
            "settings": self.cell.settings,
            "measures": self.quantity,
            "per_seed": {metric: {str(seed): v for seed, v in by.items()} for metric, by in self.values.items()},
            "means": self.means,
            "reference": self.reference,
            "differences": self.differences,
        }


@dataclass
class Comparison:
    """The table of a study.

    Attributes:
        seeds: those that each row should have.
        metrics: metric -> its name in the table.
        measured: sentence that says what the values are.
        unlike: what the runs do not have in common and should, such as the commit.
    """

    seeds: list[int]
    metrics: dict[str, str]
    measured: str
    rows: list[Row]
    unlike: list[str] = field(default_factory=list)


def compare(
    cells: Sequence[Cell], seeds: Sequence[int], finals: FinalValues, unlike: Sequence[str] = ()
) -> Comparison:
    """Compare the cells by what their runs ended with.

    Args:
        unlike: what the runs do not have in common and should.
    """
    rows = []
    for cell in cells:
        found = {seed: finals.values[cell.name, seed] for seed in seeds if (cell.name, seed) in finals.values}
        values = {metric: {seed: final.get(metric) for seed, final in found.items()} for metric in finals.metrics}
        means = {metric: _mean(list(by_seed.values())) for metric, by_seed in values.items()}
        rows.append(Row(cell, finals.quantities.get(cell.name, ""), values, means))
    for row in rows:
        _subtract(row, reference_of(row.cell, cells), rows)
    return Comparison(list(seeds), finals.metrics, finals.measured, rows, list(unlike))


def reference_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """Return the cell that is subtracted: of the first method, with the same values on the axes that both read.

    The further settings of the first method have its first setting subtracted, which itself has None.
    """
    first = [other for other in cells if other.method == cells[0].method]
    if cell.method == first[0].method:
        return None if cell is first[0] else first[0]
    return next(
        other
        for other in first
        if all(cell.settings.get(key, value) == value for key, value in other.settings.items())
    )


def _subtract(row: Row, reference: Cell | None, rows: Sequence[Row]) -> None:
    if reference is None:
        return
    other = next(one for one in rows if one.cell is reference)
    row.reference = reference.name
    for metric, values in row.values.items():
        same = row.quantity == other.quantity
        row.differences[metric] = paired_difference(values, other.values[metric]) if same else None


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
