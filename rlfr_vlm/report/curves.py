"""Turn the logged metrics of runs into charts.

Seeds of one experiment are combined into a line (mean) with a band (range).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlfr_vlm.files import JsonObject
from rlfr_vlm.report.read_run import Run, names_of


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        metrics: (name, label) pairs.
        prefix, suffix: if set, all metrics whose names begin and end with them, instead of `metrics`.
        first_only: draw only the first experiment, because the chart has many lines.
        per_rollout: the metric differs between updates with and without a rollout; average it over the updates from
            one rollout to the next.
    """

    id: str
    title: str
    unit: str
    metrics: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    suffix: str = ""
    note: str = ""
    first_only: bool = False
    per_rollout: bool = False


COLOURS = 6  # colours of the page; further lines differ in their dashes
CHARTS = (
    Chart("accuracy", "Outcome", "share right", (("outcome/accuracy", "right among decided"),
                                                 ("outcome/undecided", "undecided"))),
    Chart("rewards", "Reward parts", "mean reward", prefix="rewards/", suffix="/mean"),
    Chart("held-out", "Held-out accuracy", "share right",
          (("eval_greedy", "greedy"), ("eval_sampled", "sampled"))),
    Chart("length", "Response length", "tokens", (("completions/mean_length", "mean"),
                                                  ("completions/max_length", "longest"))),
    Chart("truncated", "Truncated and repetitive responses", "share",
          (("completions/clipped_ratio", "truncated"), ("completions/repetitive", "repetitive"))),
    Chart("entropy", "Entropy", "nats per token", (("entropy", "entropy"),)),
    Chart("deviation", "Deviation from the flow", "mean over tokens",
          (("flow/deviation_correct", "right responses"), ("flow/deviation_wrong", "wrong responses"))),
    Chart("auc", "AUC of deviation", "AUC, wrong above right",
          (("flow/auc_within_group_mean", "same prompt, mean over tokens"),
           ("flow/auc_within_group_max", "same prompt, largest token"),
           ("flow/auc_wrong_above_correct_mean", "all prompts, mean over tokens"),
           ("flow/auc_wrong_above_correct_max", "all prompts, largest token")),
          note="0.5 is chance. Training can use what separates responses to the same prompt; all prompts together "
          "include how hard prompts are."),
    Chart("flow-loss", "Loss of the flow update", "loss", (("flow/loss", "loss"),)),
    Chart("flow-share", "Tokens with a flow reward", "share of tokens",
          (("flow/share_rewarded", "rewarded"), ("flow/share_penalised", "penalised"))),
    Chart("gap", "Log-prob gap between rollout engine and trainer", "nats per token",
          (("rollout/logp_gap_mean", "mean"), ("rollout/logp_gap_max", "largest"))),
    Chart("effective", "Effective sample size of the rollouts", "share",
          (("rollout/effective_share", "after importance weighting"),)),
    Chart("flat", "Groups without a learning signal", "share", (("frac_reward_zero_std", "all rewards equal"),)),
    Chart("gradient", "Gradient norm", "norm", (("grad_norm", "policy"),)),
    Chart("speed", "Time", "seconds per update", (("step_time", "whole update"),), per_rollout=True),
    Chart("time", "Time per part", "seconds per update", prefix="seconds/", first_only=True, per_rollout=True),
    Chart("memory", "Peak memory", "GB", prefix="memory/", suffix="_gb", first_only=True),
)  # fmt: skip


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
    charts = []
    experiments = group_by_experiment(runs)
    for chart in CHARTS:
        drawn = experiments[:1] if chart.first_only else experiments
        steps, lines = _lines(chart, drawn)
        if lines:
            scope = [f"Of {drawn[0].name}."] if len(drawn) < len(experiments) else []
            note = " ".join([chart.note, *scope, *_band_note(lines)]).strip()
            charts.append(
                {
                    "id": chart.id,
                    "title": chart.title,
                    "unit": chart.unit,
                    "note": note,
                    "steps": steps,
                    "lines": lines,
                }
            )
    return charts


def _lines(chart: Chart, experiments: Sequence[Experiment]) -> tuple[list[int], list[JsonObject]]:
    """Steps of a chart, and its lines with their values at those steps."""
    metrics = labelled_metrics(chart, [run for experiment in experiments for run in experiment.runs])
    values = {
        (index, metric): [
            metric_by_step(run, metric, updates_of_a_rollout(run) if chart.per_rollout else 1)
            for run in experiment.runs
        ]
        for index, experiment in enumerate(experiments)
        for metric, _ in metrics
    }
    steps = sorted({step for by_run in values.values() for by_step in by_run for step in by_step})
    lines, several = [], len(experiments) > 1
    for index, experiment in enumerate(experiments):
        for metric_index, (metric, label) in enumerate(metrics):
            if not any(values[index, metric]):
                continue
            if several:
                text = f"{experiment.name}: {label}" if len(metrics) > 1 else experiment.name
                style = {"colour": index, "dash": metric_index + index // COLOURS}
            else:
                text, style = label, {"colour": metric_index, "dash": metric_index // COLOURS}
            lines.append({"label": text, **style, **combine_seeds(values[index, metric], steps)})
    return steps, lines


def _band_note(lines: Sequence[JsonObject]) -> list[str]:
    counts = sorted({line["seeds"] for line in lines if line["seeds"] > 1})
    return [f"Line: mean of {' or '.join(map(str, counts))} seeds; band: lowest to highest."] if counts else []
