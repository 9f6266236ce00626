"""What finished runs ended with: the accuracy on held-out rows or, without any, the outcome in training."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rlfr_vlm.report.charts import ACCURACY
from rlfr_vlm.report.header import ends_of
from rlfr_vlm.report.read_run import Run, short_reward_name

HELD_OUT = {"eval_greedy": "greedy", "eval_sampled": "sampled"}
OUTCOME = {"outcome/mean": "outcome"}
# What the runs of a fair comparison have in common, in their `run.json`.
RECORDED = {"rlfr_vlm": "version", "git": "commit", "versions": "package versions", "grader": "grader"}
Values = dict[str, float | None]  # metric -> value; None where no answer was decided


@dataclass(frozen=True)
class FinalValues:
    """What the runs of a study ended with.

    Attributes:
        metrics: metric -> its name in the table.
        measured: sentence that says what the values are.
        values: (name of the cell, seed) -> its values.
        quantities: name of the cell -> what its values measure.
    """

    metrics: dict[str, str]
    measured: str
    values: dict[tuple[str, int], Values]
    quantities: dict[str, str]


def final_values(runs: Mapping[tuple[str, int], Run]) -> FinalValues:
    """Read the last evaluations on held-out rows or, if no run made one, the outcomes.

    Args:
        runs: (name of the cell, seed) -> finished run.
    """
    held_out = any("eval_rows" in line for run in runs.values() for line in run.metrics)
    read = _last_evaluation if held_out else _last_outcome
    ends = {key: read(run) for key, run in runs.items()}
    quantities = {name: _quantity(run, held_out) for (name, _), run in runs.items()}
    steps = [step for step, values in ends.values() if values]
    return FinalValues(
        HELD_OUT if held_out else OUTCOME,
        _measured(held_out, set(quantities.values()), steps),
        {key: values for key, (_, values) in ends.items()},
        quantities,
    )


def _last_evaluation(run: Run) -> tuple[int, Values]:
    """Update of the last evaluation, and its accuracies; empty if there is none."""
    last = next((line for line in reversed(run.metrics) if "eval_rows" in line), None)
    return (0, {}) if last is None else (last["step"], {name: last.get(name) for name in HELD_OUT})


def _last_outcome(run: Run) -> tuple[int, Values]:
    """Number of the last tenth of the logged steps, and their mean outcome; empty if there is none."""
    ends = ends_of(run, "outcome/mean")
    return (0, {}) if ends is None else (ends.steps, {"outcome/mean": ends.last})


def _quantity(run: Run, held_out: bool) -> str:
    """Name of what a run's values measure. Held-out answers are graded also with the reference probability."""
    return ACCURACY if held_out and run.outcome == "reference_probability" else run.outcome


def _measured(held_out: bool, quantities: Collection[str], steps: Collection[int]) -> str:
    if not steps:
        return "No finished run has logged an outcome or an evaluation."
    between = str(min(steps)) if len(set(steps)) == 1 else f"{min(steps)} to {max(steps)}"
    if held_out:
        what = "accuracy" if quantities == {ACCURACY} else "share of right answers, by the first reward,"
        return f"Held-out {what} at the last evaluation, update {between}; means over seeds."
    texts = " or ".join(sorted(map(short_reward_name, quantities)))
    return (
        f"Outcome in training ({texts}), mean of the last {between} logged steps and over seeds. It is no held-out "
        "accuracy: --eval_strategy steps measures one."
    )


def unlike(runs: Sequence[Run]) -> list[str]:
    """Names of what the runs record differently: versions, commit, GPUs, number of processes."""
    records = [run.record for run in runs]
    found = [text for name, text in RECORDED.items() if _differ([record.get(name) for record in records])]
    hardware = [record.get("hardware") for record in records]
    gpus = [[one.get("gpus"), record.get("processes")] for one, record in zip(hardware, records, strict=True) if one]
    return found + (["GPUs or number of processes"] if _differ(gpus) else [])


def _differ(values: Sequence[object]) -> bool:
    return any(value != values[0] for value in values)
