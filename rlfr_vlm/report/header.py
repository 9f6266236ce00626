"""The head of a page: what a run was, which settings are not the defaults, which alerts it raised."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlfr_vlm.report.curves import series
from rlfr_vlm.report.read_run import SEEDS_AND_PLACES, Run

# Settings that are shown as facts, or follow from others.
SHOWN_ELSEWHERE = SEEDS_AND_PLACES | {
    "method", "model_name_or_path", "dataset_name", "dataset_split", "generation_batch_size", "logging_strategy",
}  # fmt: skip


@dataclass
class Verdict:
    """Summary of the alerts: kind `fine`, `trouble` or `unknown`."""

    kind: str
    title: str
    findings: list[str] = field(default_factory=list)


def verdict_of(runs: Sequence[Run], names: Sequence[str]) -> Verdict:
    """Summarise the alerts of all runs; a run without alert checks is reported as unknown, not as fine."""
    findings = []
    for run, name in zip(runs, names, strict=True):
        start = f"{name}, step" if len(runs) > 1 else "Step"
        findings += [f"{start} {alert.step}: {alert.message}" for alert in run.alerts]
        if run.cut_lines:
            findings.append(f"{name}: {run.cut_lines} lines of its logs could not be read, as after a kill.")
    if any(run.alerts for run in runs):
        return Verdict("trouble", "Alerts were raised during training.", findings)
    unchecked = [name for run, name in zip(runs, names, strict=True) if not run.watched or not run.config]
    if unchecked:
        return Verdict("unknown", f"No alert checks ran in {', '.join(unchecked)}.", findings)
    return Verdict("fine", "The alert checks found no problem.", findings)


def facts_of(run: Run) -> list[tuple[str, str]]:
    """(name, value) pairs; what is not known is left out."""
    record, config = run.record, run.config
    data = _mapping(record.get("data"))
    rows = f"{data['rows']:,} rows" if isinstance(data.get("rows"), int) else ""
    facts: list[tuple[str, Any]] = [
        ("method", config.get("method")),
        ("policy", config.get("model_name_or_path") or record.get("policy")),
        (
            "data",
            ", ".join(part for part in (str(data.get("name") or ""), str(data.get("split") or ""), rows) if part),
        ),
        ("updates", _updates(run)),
        ("outcome", _first_and_last(run, "outcome/accuracy")),
        ("held out", _first_and_last(run, "eval_greedy")),
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


def _first_and_last(run: Run, metric: str) -> str | None:
    """Mean of the first and of the last tenth of the logged steps."""
    values = list(series(run, metric).values())
    if not values:
        return None
    part = math.ceil(len(values) / 10)
    first, last = sum(values[:part]) / part, sum(values[-part:]) / part
    where = "step" if part == 1 else f"{part} steps"
    return f"{first:.3f} right in the first {where}, {last:.3f} in the last"


def _duration(run: Run) -> str | None:
    seconds = next((line["train_runtime"] for line in reversed(run.metrics) if "train_runtime" in line), None)
    if seconds is not None:
        starts = len(run.record.get("earlier") or []) + 1
        return span(float(seconds)) + (f" in the last of {starts} starts" if starts > 1 else "")
    logged = sum(series(run, "step_time").values())
    return f"{span(logged)} in logged steps, not ended" if logged else None


def span(seconds: float) -> str:
    """A duration for people.

    >>> span(59.6), span(200), span(7300)
    ('60 s', '3 min 20 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _hardware(hardware: Mapping[str, Any], processes: Any) -> str:
    gpus = hardware.get("gpus") or []
    parts = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    if "cpus" in hardware:
        parts.append(f"{hardware['cpus']} CPU threads, {hardware.get('memory_gb')} GB")
    if processes:
        parts.append(f"{processes} process{'es' if processes != 1 else ''}")
    return ", ".join(parts)


def _versions(record: Mapping[str, Any]) -> str:
    versions = {"rlfr-vlm": record.get("rlfr_vlm"), "python": record.get("python"), **_mapping(record.get("versions"))}
    return ", ".join(f"{name} {value}" for name, value in versions.items() if value)


def _mapping(value: Any) -> Mapping[str, Any]:
    """What a file may hold, where somebody has changed it."""
    return value if isinstance(value, Mapping) else {}


def _commit(git: Any) -> str | None:
    if not _mapping(git):
        return None
    return f"{git.get('commit')}{', with changes' if git.get('changed') else ''}"


def settings_of(run: Run, defaults: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, default) of the settings that differ from their defaults."""
    missing = object()
    found = []
    for name, value in sorted(run.config.items()):
        default = defaults.get(name, missing)
        if name not in SHOWN_ELSEWHERE and default is not missing and value != default:
            found.append((name, _text(value), _text(default)))
    return found


def _text(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
