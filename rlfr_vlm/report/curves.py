"""Which metrics are drawn, and seeds of one experiment joined to a mean with a band."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlfr_vlm.report.read_run import Run, names_of


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        metrics: (name, label) pairs.
        prefix, suffix: instead, every metric that begins and ends so.
        first_only: of several experiments the first is drawn; more would be unreadable.
        per_rollout: only some updates generate; values are means over the updates of a rollout.
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


COLOURS = 6  # that the page has; further lines are told apart by their dashes
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
    Chart("auc", "Does deviation tell wrong from right?", "AUC, wrong above right",
          (("flow/auc_wrong_above_correct_mean", "mean over tokens"),
           ("flow/auc_wrong_above_correct_max", "largest token")), note="0.5 is chance."),
    Chart("flow-loss", "Loss of the flow's update", "loss", (("flow/loss", "loss"),)),
    Chart("flow-share", "Tokens with a flow reward", "share of tokens",
          (("flow/share_rewarded", "rewarded"), ("flow/share_penalised", "penalised"))),
    Chart("gap", "Rollout engine against trainer", "nats per token",
          (("rollout/logp_gap_mean", "mean gap of log-probs"), ("rollout/logp_gap_max", "largest"))),
    Chart("effective", "Effective share of the engine's responses", "share",
          (("rollout/effective_share", "after weighting to the trainer's policy"),)),
    Chart("flat", "Groups that teach nothing", "share", (("frac_reward_zero_std", "all rewards alike"),)),
    Chart("gradient", "Gradient norm", "norm", (("grad_norm", "policy"),)),
    Chart("speed", "Time", "seconds per update", (("step_time", "whole update"),), per_rollout=True),
    Chart("time", "Where the time goes", "seconds per update", prefix="seconds/", first_only=True, per_rollout=True),
    Chart("memory", "Peak memory", "GB", prefix="memory/", suffix="_gb", first_only=True),
)  # fmt: skip


def series(run: Run, metric: str, window: int = 1) -> dict[int, float]:
    """A metric's values by step; with a window, the mean over each `window` logged steps, at the last of them."""
    own = {int(line["step"]): float(line[metric]) for line in run.metrics
           if _is_number(line.get(metric))}  # fmt: skip
    if window <= 1:
        return own
    steps = sorted(int(line["step"]) for line in run.metrics if "step_time" in line)
    parts = [steps[start : start + window] for start in range(0, len(steps) - window + 1, window)]
    return {part[-1]: sum(own.get(step, 0.0) for step in part) / window for part in parts} if own else {}


def updates_of_a_rollout(run: Run) -> int:
    """Logged steps from one rollout to the next."""
    updates = run.number("steps_per_generation", 1) * run.number("num_iterations", 1)
    return max(1, round(updates / max(1.0, run.number("gradient_accumulation_steps", 1))))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def labelled_metrics(chart: Chart, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """(metric, label) pairs of a chart that any of the runs has."""
    present = {name for run in runs for line in run.metrics for name in line}
    if not chart.prefix:
        return [(name, label) for name, label in chart.metrics if name in present]
    own = sorted(name for name in present if name.startswith(chart.prefix) and name.endswith(chart.suffix))
    return [(name, name[len(chart.prefix) : len(name) - len(chart.suffix)]) for name in own]


def experiments(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Runs that differ in nothing but their seed, together under one name; in the order given."""
    names, together = names_of(runs), dict[str, list[int]]()
    for index, run in enumerate(runs):
        # without a configuration nothing says that two runs are alike
        together.setdefault(run.experiment if run.config else names[index], []).append(index)
    methods = [runs[own[0]].method for own in together.values()]
    found = []
    for own, method in zip(together.values(), methods, strict=True):
        alone = names[own[0]] if len(own) == 1 else f"{method}, {len(own)} seeds"
        found.append((method if methods.count(method) == 1 and len(own) > 1 else alone, [runs[i] for i in own]))
    return found


def joined(found: Sequence[Mapping[int, float]], steps: Sequence[int]) -> dict[str, Any]:
    """Mean over the runs that have values, at each step, with several also the lowest and the highest.

    None where one of them has no value; `seeds` says how many they are.
    """
    kept = [one for one in found if one]

    def at(combine: Callable[[list[float]], float]) -> list[float | None]:
        return [combine([one[step] for one in kept]) if all(step in one for one in kept) else None for step in steps]

    lines: dict[str, Any] = {"values": at(lambda values: sum(values) / len(values))}
    if len(kept) > 1:
        lines |= {"low": at(min), "high": at(max)}
    return lines | {"seeds": len(kept)}


def charts_of(runs: list[Run]) -> list[dict[str, Any]]:
    """The charts as the page's script draws them; those without any value are left out.

    With one experiment a line's colour is its metric's; with several it is its experiment's, and the dash its
    metric's.
    """
    drawn = []
    groups = experiments(runs)
    for chart in CHARTS:
        shown = groups[:1] if chart.first_only else groups
        steps, lines = _lines(chart, shown)
        if lines:
            whose = [f"Of {shown[0][0]}."] if len(shown) < len(groups) else []
            note = " ".join([chart.note, *whose, *_band_note(lines)]).strip()
            drawn.append({"id": chart.id, "title": chart.title, "unit": chart.unit, "note": note, "steps": steps,
                          "lines": lines})  # fmt: skip
    return drawn


def _lines(chart: Chart, groups: list[tuple[str, list[Run]]]) -> tuple[list[int], list[dict[str, Any]]]:
    """A chart's steps, and its lines with their values at those steps."""
    metrics = labelled_metrics(chart, [run for _, own in groups for run in own])
    found = {
        (number, metric): [series(run, metric, updates_of_a_rollout(run) if chart.per_rollout else 1) for run in own]
        for number, (_, own) in enumerate(groups)
        for metric, _ in metrics
    }
    steps = sorted({step for several in found.values() for one in several for step in one})
    lines, several = [], len(groups) > 1
    for number, (name, _) in enumerate(groups):
        for place, (metric, label) in enumerate(metrics):
            if any(found[number, metric]):
                text = f"{name}: {label}" if several and len(metrics) > 1 else name if several else label
                look = {"colour": number, "dash": place + number // COLOURS} if several else {
                    "colour": place, "dash": place // COLOURS}  # fmt: skip
                lines.append({"label": text, **look, **joined(found[number, metric], steps)})
    return steps, lines


def _band_note(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = sorted({line["seeds"] for line in lines if line["seeds"] > 1})
    return [f"Line: mean of {' or '.join(map(str, counts))} seeds; band: lowest to highest."] if counts else []
