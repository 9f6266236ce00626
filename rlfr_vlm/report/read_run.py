"""What a training run left in its folder, read back; one that goes on or was killed is read as far as it is."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import distinct_names
from rlfr_vlm.trainer.records.alerts import Alert, read_alerts

# Names used by the trainer, repeated here so that reading a run does not import it.
METRICS_FILE, RUN_FILE, CONFIG_FILE = "metrics.jsonl", "run.json", "config.yaml"
ROLLOUTS = "rollouts/rank*.jsonl"
# Settings that do not make another experiment of a run.
SEEDS_AND_PLACES = frozenset({
    "seed", "data_seed", "output_dir", "logging_dir", "run_name", "report_to", "local_rank", "resume_from_checkpoint",
})  # fmt: skip


@dataclass
class LoggedGroup:
    """Where a group of responses stands in the rollout log; a log is larger than memory, a page shows little of it.

    Attributes:
        row: number of the prompt's row in the data, if known.
        responses: how many.
        places: (file, offset) of its lines; several when its responses were spread over processes.
    """

    step: int
    row: int | None
    responses: int
    places: list[tuple[Path, int]]

    def read(self) -> dict[str, Any]:
        """The whole line, with the responses of all processes."""
        parts = []
        for path, offset in self.places:
            with path.open("rb") as stream:
                stream.seek(offset)
                parts.append(json.loads(stream.readline()))
        return parts[0] | {"responses": [one for part in parts for one in part["responses"]]}


@dataclass
class Run:
    """A run's files.

    Attributes:
        metrics: one line per logged step.
        groups: of the rollout log, by step.
        cut_lines: lines that could not be read, such as the last one of a killed run.
    """

    folder: Path
    config: dict[str, Any]
    record: dict[str, Any]
    metrics: list[dict[str, Any]]
    alerts: list[Alert]
    groups: list[LoggedGroup] = field(default_factory=list)
    cut_lines: int = 0

    @property
    def method(self) -> str:
        return str(self.config.get("method") or "run")

    @property
    def experiment(self) -> str:
        """The same for runs that differ in nothing but seeds and places."""
        return json.dumps({k: v for k, v in sorted(self.config.items()) if k not in SEEDS_AND_PLACES}, default=str)

    @property
    def watched(self) -> bool:
        """Whether the alert checks ran in this run."""
        return self.config.get("watch") is True

    def number(self, name: str, default: float) -> float:
        """A setting that is a number; files that somebody has changed may hold anything."""
        value = self.config.get(name)
        return float(value) if isinstance(value, int | float) else default

    def is_right(self, rewards: dict[str, float | None]) -> bool | None:
        """Whether a response is right, as the trainer counts: its first reward above a threshold; None undecided."""
        value = next(iter(rewards.values()), None)
        return None if value is None else value > self.number("flow_accept_threshold", 0.5)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: it is none, or nothing has been logged in it yet.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file. Give the folder of a run, its output_dir.")
    if not folder.is_dir():
        near = nearest(folder.name, [one.name for one in folder.parent.glob("*")]) if folder.parent.is_dir() else ""
        raise UserError(f"There is no folder {folder}.{near} Give the output_dir of a run of `rlfr train`.")
    metrics, cut = read_lines(folder / METRICS_FILE)
    groups, broken = read_groups(folder)
    cut += broken
    if not metrics and not groups:
        inside = sorted({str(path.parent.relative_to(folder)) for path in folder.rglob(METRICS_FILE)
                         if path.with_name(RUN_FILE).exists()})  # fmt: skip
        hint = f" Its runs are {', '.join(inside)}." if inside else " Give the output_dir of a run of `rlfr train`."
        raise UserError(f"{folder} has no {METRICS_FILE}, or it is empty: no step of a run has been logged.{hint}")
    config, record = _read_yaml(folder / CONFIG_FILE), _read_json(folder / RUN_FILE)
    return Run(folder, config, record, metrics, read_alerts(folder), groups, cut)


def read_groups(folder: Path) -> tuple[list[LoggedGroup], int]:
    """The groups of all processes' logs, by step, and how many lines could not be read."""
    found: dict[Any, LoggedGroup] = {}
    cut = 0
    for path in sorted(folder.glob(ROLLOUTS)):
        offset = 0
        with path.open("rb") as stream:
            for line in stream:
                group = _parsed(line)
                if group is None or not isinstance(group.get("responses"), list):
                    cut += bool(line.strip())
                else:
                    _note(found, group, path, offset)
                offset += len(line)
    return sorted(found.values(), key=lambda group: group.step), cut


def _note(found: dict[Any, LoggedGroup], group: dict[str, Any], path: Path, offset: int) -> None:
    """Add a line; the same prompt of the same rollout in another process's log is another part of its group."""
    row, count = group.get("row_number"), len(group["responses"])
    key = (group["step"], group.get("rollout"), row)
    known = None if row is None else found.get(key)
    if known is not None and all(own != path for own, _ in known.places):
        known.places.append((path, offset))
        known.responses += count
    else:
        found[key if known is None and row is not None else len(found)] = LoggedGroup(
            group["step"], row, count, [(path, offset)]
        )


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file, one per line, and how many lines are none; nothing where there is no file."""
    if not path.exists():
        return [], 0
    found, cut = [], 0
    with path.open("rb") as stream:
        for line in stream:
            value = _parsed(line)
            if value is not None:
                found.append(value)
            cut += value is None and bool(line.strip())
    return found, cut


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of a log, which always has its step; None when it is none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def names_of(runs: list[Run]) -> list[str]:
    """A name for each run, by as much of its folder's path as tells them apart."""
    return distinct_names([run.folder for run in runs])
