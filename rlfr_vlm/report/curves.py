"""Turn the logged metrics of runs into charts.

Seeds of one experiment are combined into a line (mean) with a band (range).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from rlfr_vlm.files import JsonObject
from rlfr_vlm.report.charts import CHARTS, Chart, chart_of_quantity, quantity_of
from rlfr_vlm.report.read_run import Run, names_of

COLOURS = 6  # colours of the page; further lines differ in their dashes


class Experiment(NamedTuple):
    """Runs that differ only in their seed, under the name that charts show."""

    name: str
    runs: list[Run]


def metric_by_step(run: Run, metric: str, window: int = 1) -> dict[int, float]:
    """Values of a metric by step.

    With a window, the mean over each `window` successive logged steps, at the last step of each window.
    """
    values = {int(line["step"]): float(line[metric]) for line in run.metrics if _is_finite(line.get(metric))}
    if window <= 1:
        return values
    steps = sorted(int(line["step"]) for line in run.metrics if "step_time" in line)
    windows = [steps[start : start + window] for start in range(0, len(steps) - window + 1, window)]
    if not values:
        return {}
    return {window_steps[-1]: sum(values.get(step, 0.0) for step in window_steps) / window for window_steps in windows}


def updates_of_a_rollout(run: Run) -> int:
    """Number of logged steps from one rollout to the next."""
    updates = run.number("steps_per_generation", 1) * run.number("num_iterations", 1)
    return max(1, round(updates / max(1.0, run.number("gradient_accumulation_steps", 1))))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def labelled_metrics(chart: Chart, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(metric, label) pairs of a chart that at least one of the runs has logged."""
    logged = {name for run in runs for line in run.metrics for name in line}
    if not chart.prefix:
        return [(name, label) for name, label in chart.metrics if name in logged]
    names = sorted(name for name in logged if name.startswith(chart.prefix) and name.endswith(chart.suffix))
    return [(name, name[len(chart.prefix) : len(name) - len(chart.suffix)]) for name in names]


def group_by_experiment(runs: list[Run]) -> list[Experiment]:
    """Group runs that differ only in their seed, in the order of the runs."""
    names, groups = names_of(runs), dict[str, list[int]]()
    for index, run in enumerate(runs):
        # Without a configuration, two runs cannot be assumed to be equal.
        groups.setdefault(run.experiment if run.config else names[index], []).append(index)
    methods = [runs[indices[0]].method for indices in groups.values()]
    result = []
    for indices, method in zip(groups.values(), methods, strict=True):
        single = len(indices) == 1
        if single:
            name = names[indices[0]]
        else:
            name = method if methods.count(method) == 1 else f"{method}, {len(indices)} seeds"
        result.append(Experiment(name, [runs[index] for index in indices]))
    return result


def combine_seeds(values_by_run: Sequence[Mapping[int, float]], steps: Sequence[int]) -> JsonObject:
    """Combine the values of several seeds at each step; runs without any value are left out.

    Returns:
        `values` (means), with several runs also `low` and `high`, all None at steps that one of the runs lacks;
        `seeds` is the number of runs.
    """
    runs = [values for values in values_by_run if values]

    def at_steps(combine: Callable[[list[float]], float]) -> list[float | None]:
        return [
            combine([values[step] for values in runs]) if all(step in values for values in runs) else None
            for step in steps
        ]

    line: JsonObject = {"values": at_steps(lambda values: sum(values) / len(values))}
    if len(runs) > 1:
        line |= {"low": at_steps(min), "high": at_steps(max)}
    return line | {"seeds": len(runs)}


def charts_of(runs: list[Run]) -> list[JsonObject]:
    """Charts as the page's script draws them; charts without any value are left out.

    With one experiment, colours distinguish metrics. With several, colours distinguish experiments and dashes metrics.
    """
    return charts_of_experiments(group_by_experiment(runs))


def charts_of_experiments(experiments: Sequence[Experiment], single_seeds: bool = False) -> list[JsonObject]:
    """Charts of experiments, as `charts_of` makes them.

    Args:
        single_seeds: draw a thin line for each seed instead of a band.
    """
    numbered, charts = dict(enumerate(experiments)), []
    runs = [run for experiment in experiments for run in experiment.runs]
    for chart in CHARTS:
        for part in _parts(chart, numbered):
            # of all runs, so that a metric has the same colour in the charts of all experiments
            steps, lines = _lines(part, labelled_metrics(part.chart, runs), single_seeds)
            if lines:
                drawn = part.chart
                note = " ".join([drawn.note, *_seeds_note(lines)]).strip()
                head = {"id": drawn.id, "title": drawn.title, "unit": drawn.unit, "note": note}
                charts.append({**head, "steps": steps, "lines": lines})
    return charts


class Part(NamedTuple):
    """A chart and what is drawn in it.

    Attributes:
        experiments: by their number on the page.
        by_experiment: colours distinguish experiments; otherwise metrics.
    """

    chart: Chart
    experiments: Mapping[int, Experiment]
    by_experiment: bool


def _parts(chart: Chart, experiments: Mapping[int, Experiment]) -> list[Part]:
    """Split a chart by experiment, or by the quantity that it shows of them."""
    several = len(experiments) > 1
    if chart.per_experiment and several:
        return [
            Part(_of_experiment(chart, number, experiment.name), {number: experiment}, False)
            for number, experiment in experiments.items()
        ]
    by_quantity: dict[str, dict[int, Experiment]] = {}
    for number, experiment in experiments.items():
        by_quantity.setdefault(quantity_of(chart, experiment.runs[0]), {})[number] = experiment
    return [Part(chart_of_quantity(chart, quantity), part, several) for quantity, part in by_quantity.items()]


def _of_experiment(chart: Chart, number: int, name: str) -> Chart:
    """The chart of one experiment; the first keeps the id."""
    return replace(
        chart,
        id=chart.id if number == 0 else f"{chart.id}-{number + 1}",
        title=f"{chart.title}, {name}",
        note=f"Of {name}. {chart.note}".strip(),
    )


def _lines(part: Part, metrics: Sequence[tuple[str, str]], single_seeds: bool) -> tuple[list[int], list[JsonObject]]:
    """Steps of a chart, and its lines with their values at those steps; `metrics` are (metric, label) pairs."""
    chart, experiments = part.chart, part.experiments
    values = {
        (number, metric): [
            metric_by_step(run, metric, updates_of_a_rollout(run) if chart.per_rollout else 1)
            for run in experiment.runs
        ]
        for number, experiment in experiments.items()
        for metric, _ in metrics
    }
    steps = sorted({step for by_run in values.values() for by_step in by_run for step in by_step})
    lines = []
    for number, experiment in experiments.items():
        for metric_index, (metric, label) in enumerate(metrics):
            if not any(values[number, metric]):
                continue
            if part.by_experiment:
                text = f"{experiment.name}: {label}" if len(metrics) > 1 else experiment.name
                style = {"colour": number, "dash": metric_index + number // COLOURS}
            else:
                text, style = label, {"colour": metric_index, "dash": metric_index // COLOURS}
            by_run = values[number, metric]
            combined = combine_seeds(by_run, steps)
            if single_seeds and combined["seeds"] > 1:
                combined = {name: combined[name] for name in ("values", "seeds")}
                combined["singles"] = _singles(experiment.runs, by_run, steps)
            lines.append({"label": text, **style, **combined})
    return steps, lines


def _singles(
    runs: Sequence[Run], values_by_run: Sequence[Mapping[int, float]], steps: Sequence[int]
) -> list[JsonObject]:
    """Values of each run that has any, at the steps of its chart."""
    return [
        {"label": f"seed {run.config.get('seed')}", "values": [values.get(step) for step in steps]}
        for run, values in zip(runs, values_by_run, strict=True)
        if values
    ]


def _seeds_note(lines: Sequence[JsonObject]) -> list[str]:
    """Say what a line and its band, or its thin lines, are."""
    counts = sorted({line["seeds"] for line in lines if line["seeds"] > 1})
    if not counts:
        return []
    singles = any("singles" in line for line in lines)
    mean = f"mean of {' or '.join(map(str, counts))} seeds"
    return [f"Thick: {mean}; thin: single seeds." if singles else f"Line: {mean}; band: lowest to highest."]
