"""Compare the finished runs of a sweep: means over seeds, and paired differences from the first method."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlfr_vlm.files import JsonObject
from rlfr_vlm.report.charts import ACCURACY
from rlfr_vlm.report.header import ends_of
from rlfr_vlm.report.read_run import Run, short_reward_name
from rlfr_vlm.stats import PairedDifference, paired_difference
from rlfr_vlm.sweep.definition import Cell

HELD_OUT = {"eval_greedy": "greedy", "eval_sampled": "sampled"}
OUTCOME = {"outcome/mean": "outcome"}
# What the runs of a fair comparison have in common, in their `run.json`.
RECORDED = {"rlfr_vlm": "version", "git": "commit", "versions": "package versions", "grader": "grader"}


class FinalValues(NamedTuple):
    """What a run ended with.

    Attributes:
        step: update at which it was measured, or the number of logged steps that the mean is over.
        values: metric -> value; None where no answer was decided.
    """

    step: int
    values: dict[str, float | None]


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
    """The table of a sweep.

    Attributes:
        metrics: metric -> its name in the table.
        measured: sentence that says what the values are.
        unlike: what the runs do not have in common and should, such as the commit.
    """

    metrics: dict[str, str]
    measured: str
    rows: list[Row]
    unlike: list[str] = field(default_factory=list)


def compare(cells: Sequence[Cell], seeds: Sequence[int], runs: dict[tuple[str, int], Run]) -> Comparison:
    """Compare the runs of a sweep.

    Args:
        runs: (name of the cell, seed) -> finished run.
    """
    held_out = any("eval_rows" in line for run in runs.values() for line in run.metrics)
    metrics = HELD_OUT if held_out else OUTCOME
    finals = {key: held_out_values(run) if held_out else outcome_values(run) for key, run in runs.items()}
    rows = []
    for cell in cells:
        found = {seed: finals[cell.name, seed] for seed in seeds if (cell.name, seed) in finals}
        values = {metric: {seed: final.values.get(metric) for seed, final in found.items()} for metric in metrics}
        first = next((runs[cell.name, seed] for seed in found), None)
        means = {metric: _mean(list(by_seed.values())) for metric, by_seed in values.items()}
        rows.append(Row(cell, "" if first is None else _quantity(first, held_out), values, means))
    for row in rows:
        _subtract(row, reference_of(row.cell, cells), rows)
    return Comparison(metrics, _measured(held_out, rows, list(finals.values())), rows, unlike(list(runs.values())))


def unlike(runs: Sequence[Run]) -> list[str]:
    """Names of what the runs record differently: versions, commit, GPUs, number of processes."""
    records = [run.record for run in runs]
    found = [text for name, text in RECORDED.items() if _differ([record.get(name) for record in records])]
    hardware = [record.get("hardware") for record in records]
    gpus = [[one.get("gpus"), record.get("processes")] for one, record in zip(hardware, records, strict=True) if one]
    return found + (["GPUs or number of processes"] if _differ(gpus) else [])


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values)


def held_out_values(run: Run) -> FinalValues:
    """Accuracies of the last evaluation of a run; without values if it made none."""
    last = next((line for line in reversed(run.metrics) if "eval_rows" in line), None)
    return (
        FinalValues(0, {}) if last is None else FinalValues(last["step"], {name: last.get(name) for name in HELD_OUT})
    )


def outcome_values(run: Run) -> FinalValues:
    """Mean outcome of the last tenth of the logged steps of a run."""
    ends = ends_of(run, "outcome/mean")
    return FinalValues(0, {}) if ends is None else FinalValues(ends.steps, {"outcome/mean": ends.last})


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


def _quantity(run: Run, held_out: bool) -> str:
    """Name of what a run's values measure. Held-out answers are graded also with the reference probability."""
    return ACCURACY if held_out and run.outcome == "reference_probability" else run.outcome


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _measured(held_out: bool, rows: Sequence[Row], finals: Sequence[FinalValues]) -> str:
    steps = sorted({final.step for final in finals if final.values})
    if not steps:
        return "No finished run has logged an outcome or an evaluation."
    between = str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    names = {row.quantity for row in rows if row.quantity}
    if held_out:
        what = "accuracy" if names == {ACCURACY} else "share of right answers, by the first reward,"
        return f"Held-out {what} at the last evaluation, update {between}; means over seeds."
    texts = " or ".join(sorted(short_reward_name(name) for name in names))
    return (
        f"Outcome in training ({texts}), mean of the last {between} logged steps and over seeds. It is no held-out "
        "accuracy: --eval_strategy steps measures one."
    )
