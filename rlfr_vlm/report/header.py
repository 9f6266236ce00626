"""Summary at the head of a report: facts about the run, changed settings, and alerts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlfr_vlm.files import JsonObject
from rlfr_vlm.report.curves import metric_by_step
from rlfr_vlm.report.read_run import Run, short_reward_name
from rlfr_vlm.sources import joined
from rlfr_vlm.trainer.records.alerts import unjudged_checks


@dataclass
class Verdict:
    """Result of the alerts of all runs.

    Attributes:
        kind: `fine`, `trouble`, or `unknown` if alerts were not enabled or checks could not judge.
        findings: one sentence per alert or unreadable log.
        unjudged: one sentence per reason why checks could not judge.
    """

    kind: str
    title: str
    findings: list[str] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)


def verdict_of(runs: Sequence[Run], names: Sequence[str]) -> Verdict:
    """Verdict over all runs. A run without alerts counts as fine only if alerts were enabled and all checks judged."""
    findings = []
    for run, name in zip(runs, names, strict=True):
        start = f"{name}, step" if len(runs) > 1 else "Step"
        findings += [f"{start} {alert.step}: {alert.message}" for alert in run.alerts]
        if run.cut_lines:
            findings.append(f"{name}: {run.cut_lines} lines of its logs could not be read, as after a kill.")
    unjudged = _unjudged_sentences(runs, names)
    if any(run.alerts for run in runs):
        return Verdict("trouble", "Alerts were raised during training.", findings, unjudged)
    unchecked = [name for run, name in zip(runs, names, strict=True) if not run.watched or not run.config]
    if unchecked:
        return Verdict("unknown", f"Alerts were not enabled for {', '.join(unchecked)}.", findings, unjudged)
    if unjudged:
        return Verdict("unknown", "No alert was raised, but some checks could not judge.", findings, unjudged)
    return Verdict("fine", "The alert checks found no problem.", findings)


def _unjudged_sentences(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """One sentence for all watched runs whose checks lack the same steps."""
    runs_of: dict[str, list[str]] = {}
    for run, name in zip(runs, names, strict=True):
        by_steps: dict[tuple[int, int], list[str]] = {}
        for check in unjudged_checks(run.metrics) if run.watched else ():
            by_steps.setdefault((check.steps, check.needed), []).append(check.name)
        parts = [f"{', '.join(checks)} ({steps} of {needed})" for (steps, needed), checks in by_steps.items()]
        if parts:
            runs_of.setdefault("; ".join(parts), []).append(name)
    start = "not judged yet, for want of logged steps with their metrics"
    return [
        f"{', '.join(members)}: {start}: {text}." if len(runs) > 1 else f"{start.capitalize()}: {text}."
        for text, members in runs_of.items()
    ]


def facts_of(run: Run) -> list[tuple[str, str]]:
    """(name, value) pairs of the summary; facts without a value are left out."""
    record, config = run.record, run.config
    data = _mapping(record.get("data"))
    name = data.get("name") or ""
    name = joined(name) if isinstance(name, list) else str(name)
    rows = f"{data['rows']:,} rows" if isinstance(data.get("rows"), int) else ""
    facts: list[tuple[str, object]] = [
        ("method", config.get("method")),
        ("policy", config.get("model_name_or_path") or record.get("policy")),
        (
            "data",
            ", ".join(part for part in (name, str(data.get("split") or ""), rows) if part),
        ),
        ("updates", _updates(run)),
        _outcome(run),
        ("held out", _first_and_last(run, "eval_greedy", "right")),
        ("duration", _duration(run)),
        ("hardware", _hardware(_mapping(record.get("hardware")), record.get("processes"))),
        ("seed", config.get("seed", record.get("seed"))),
        ("started", record.get("started")),
        ("resumed", f"{len(record['earlier'])} times" if record.get("earlier") else None),
        ("versions", _versions(record)),
        ("commit", _commit(record.get("git"))),
        ("command", " ".join(map(str, record.get("command") or []))),
        ("folder", str(run.folder)),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _updates(run: Run) -> str:
    steps = [int(line["step"]) for line in run.metrics]
    planned = run.config.get("max_steps")
    if not steps:
        return "none logged"
    return f"{max(steps)} of {planned}" if isinstance(planned, int) and planned > 0 else str(max(steps))


def _outcome(run: Run) -> tuple[str, str | None]:
    """Fact about the outcome: the share of right responses, or the mean of a reward that grades nothing."""
    if run.outcome == "accuracy":
        return "outcome", _first_and_last(run, "outcome/accuracy", "right")
    return short_reward_name(run.outcome), _first_and_last(run, "outcome/mean", "on average")


class Ends(NamedTuple):
    """Means of a metric over the first and over the last tenth of its logged steps; `steps` of them each."""

    first: float
    last: float
    steps: int


def ends_of(run: Run, metric: str) -> Ends | None:
    """Means of a metric at both ends of a run; None if it was not logged."""
    values = list(metric_by_step(run, metric).values())
    if not values:
        return None
    part = math.ceil(len(values) / 10)
    return Ends(sum(values[:part]) / part, sum(values[-part:]) / part, part)


def _first_and_last(run: Run, metric: str, what: str) -> str | None:
    """Describe a metric at both ends of a run."""
    if (ends := ends_of(run, metric)) is None:
        return None
    first, last, part = ends
    where = "step" if part == 1 else f"{part} steps"
    return f"{first:.3f} {what} in the first {where}, {last:.3f} in the last"


def _duration(run: Run) -> str | None:
    seconds = next((line["train_runtime"] for line in reversed(run.metrics) if "train_runtime" in line), None)
    if seconds is not None:
        starts = len(run.record.get("earlier") or []) + 1
        return duration_text(float(seconds)) + (f" in the last of {starts} starts" if starts > 1 else "")
    logged = sum(metric_by_step(run, "step_time").values())
    return f"{duration_text(logged)} in logged steps, not ended" if logged else None


def duration_text(seconds: float) -> str:
    """Duration as text.

    >>> duration_text(59.6), duration_text(200), duration_text(7300)
    ('60 s', '3 min 20 s', '2 h 1 min')
    """
    total = round(seconds)
    if total < 120:
        return f"{total} s"
    if total < 7200:
        return f"{total // 60} min {total % 60} s"
    return f"{total // 3600} h {total % 3600 // 60} min"


def _hardware(hardware: JsonObject, processes: object) -> str:
    gpus = hardware.get("gpus") or []
    parts = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    if "cpus" in hardware:
        parts.append(f"{hardware['cpus']} CPU threads, {hardware.get('memory_gb')} GB")
    if processes:
        parts.append(f"{processes} process{'es' if processes != 1 else ''}")
    return ", ".join(parts)


def _versions(record: JsonObject) -> str:
    versions = {"rlfr-vlm": record.get("rlfr_vlm"), "python": record.get("python"), **_mapping(record.get("versions"))}
    return ", ".join(f"{name} {value}" for name, value in versions.items() if value)


def _mapping(value: object) -> JsonObject:
    """The value if it is a JSON object, else {}: the file may have been edited."""
    return value if isinstance(value, dict) else {}


def _commit(git: object) -> str | None:
    values = _mapping(git)
    if not values:
        return None
    return f"{values.get('commit')}{', with changes' if values.get('changed') else ''}"
