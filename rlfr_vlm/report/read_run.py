"""Read the folder of a training run. An unfinished run is read up to its last complete line."""

import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonObject, distinct_names
from rlfr_vlm.trainer.records.alerts import Alert, read_alerts

# Names used by the trainer, repeated here so that reading a run does not import it.
METRICS_FILE, RUN_FILE, CONFIG_FILE = "metrics.jsonl", "run.json", "config.yaml"
ROLLOUTS = "rollouts/rank*.jsonl"
# Settings in which two runs of the same experiment may differ.
SEEDS_AND_PLACES = frozenset(
    {
        "seed",
        "data_seed",
        "output_dir",
        "logging_dir",
        "run_name",
        "report_to",
        "local_rank",
        "resume_from_checkpoint",
    }
)


@dataclass
class LoggedGroup:
    """Location of a group of responses in the rollout log, which may be larger than memory.

    Attributes:
        row: row number of the prompt in the data, if logged.
        responses: number of responses.
        places: (file, byte offset) of its lines, one for each rank that had responses of the group.
    """

    step: int
    row: int | None
    responses: int
    places: list[tuple[Path, int]]

    def read(self) -> JsonObject:
        """Read the logged group, with the responses of all ranks."""
        parts = []
        for path, offset in self.places:
            with path.open("rb") as stream:
                stream.seek(offset)
                parts.append(json.loads(stream.readline()))
        return parts[0] | {"responses": [response for part in parts for response in part["responses"]]}


@dataclass
class Run:
    """Contents of a run folder.

    Attributes:
        config: settings of the run (config.yaml).
        record: provenance of the run (run.json).
        metrics: one object per logged step.
        groups: groups of the rollout log, sorted by step.
        cut_lines: number of log lines that could not be parsed, such as the last one of a killed run.
    """

    folder: Path
    config: JsonObject
    record: JsonObject
    metrics: list[JsonObject]
    alerts: list[Alert]
    groups: list[LoggedGroup] = field(default_factory=list)
    cut_lines: int = 0

    @property
    def method(self) -> str:
        return str(self.config.get("method") or "run")

    @property
    def outcome(self) -> str:
        """Name of the outcome, the first reward: the one that is set, or the one of the method."""
        rewards = self.config.get("rewards")
        if isinstance(rewards, list) and rewards:
            return str(rewards[0])
        return "reference_probability" if "rlpr" in self.method.split("+") else "accuracy"

    @property
    def given(self) -> set[str] | None:
        """Names of the settings that the configuration file or the command line set; None if they are not recorded."""
        names = self.record.get("given_settings")
        return set(map(str, names)) if isinstance(names, list) else None

    @property
    def experiment(self) -> str:
        """Key that is equal for runs that differ only in `SEEDS_AND_PLACES`."""
        return json.dumps({k: v for k, v in sorted(self.config.items()) if k not in SEEDS_AND_PLACES}, default=str)

    @property
    def watched(self) -> bool:
        """Whether alerts were enabled in this run."""
        return self.config.get("watch") is True

    def number(self, name: str, default: float) -> float:
        """Value of a numeric setting, or the default if the file has no number there."""
        value = self.config.get(name)
        return float(value) if isinstance(value, int | float) else default

    def is_right(self, rewards: dict[str, float | None]) -> bool | None:
        """Whether a response is right: its first reward exceeds the accept threshold. None if undecided."""
        value = next(iter(rewards.values()), None)
        return None if value is None else value > self.number("flow_accept_threshold", 0.5)


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: the folder is not a run folder, or nothing has been logged yet.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file. Give the folder of a run, its output_dir.")
    if not folder.is_dir():
        hint = nearest(folder.name, [path.name for path in folder.parent.glob("*")]) if folder.parent.is_dir() else ""
        raise UserError(f"There is no folder {folder}.{hint} Give the output_dir of a run of `rlfr train`.")
    metrics, cut = read_lines(folder / METRICS_FILE)
    groups, broken = read_groups(folder)
    cut += broken
    if not metrics and not groups:
        inside = sorted(
            str(path.parent.relative_to(folder))
            for path in folder.rglob(METRICS_FILE)
            if path.with_name(RUN_FILE).exists()
        )
        hint = f" Its runs are {', '.join(inside)}." if inside else " Give the output_dir of a run of `rlfr train`."
        raise UserError(f"{folder} has no {METRICS_FILE}, or it is empty: no step of a run has been logged.{hint}")
    config, record = _read_yaml(folder / CONFIG_FILE), _read_json(folder / RUN_FILE)
    return Run(folder, config, record, metrics, read_alerts(folder), groups, cut)


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a run of `rlfr train` that has made all its updates and saved the policy."""
    return "finished" in _read_json(folder / RUN_FILE)


def read_groups(folder: Path) -> tuple[list[LoggedGroup], int]:
    """Groups of the rollout logs of all ranks, sorted by step, and the number of lines that could not be parsed."""
    groups: dict[Hashable, LoggedGroup] = {}
    cut = 0
    for path in sorted(folder.glob(ROLLOUTS)):
        offset = 0
        with path.open("rb") as stream:
            for line in stream:
                group = _parsed(line)
                if group is None or not isinstance(group.get("responses"), list):
                    cut += bool(line.strip())
                else:
                    _add_line(groups, group, path, offset)
                offset += len(line)
    return sorted(groups.values(), key=lambda group: group.step), cut


def _add_line(groups: dict[Hashable, LoggedGroup], group: JsonObject, path: Path, offset: int) -> None:
    """Add a logged line; a line with the same prompt and rollout in another rank's log belongs to the same group."""
    row, count = group.get("row_number"), len(group["responses"])
    row = row if type(row) is int else None
    key = (group["step"], str(group.get("rollout")), row)
    present = None if row is None else groups.get(key)
    if present is not None and all(other != path for other, _ in present.places):
        present.places.append((path, offset))
        present.responses += count
    else:
        groups[key if present is None and row is not None else len(groups)] = LoggedGroup(
            group["step"], row, count, [(path, offset)]
        )


def read_lines(path: Path) -> tuple[list[JsonObject], int]:
    """JSON objects of a JSON Lines file, and the number of unparsable lines; ([], 0) if there is no file."""
    if not path.exists():
        return [], 0
    values, cut = [], 0
    with path.open("rb") as stream:
        for line in stream:
            value = _parsed(line)
            if value is not None:
                values.append(value)
            cut += value is None and bool(line.strip())
    return values, cut


def _parsed(line: bytes) -> JsonObject | None:
    """Parse a line of a log; None if it is not a JSON object with an integer `step`."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and type(value.get("step")) is int else None


def _read_json(path: Path) -> JsonObject:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> JsonObject:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return {str(name): setting for name, setting in value.items()} if isinstance(value, dict) else {}


def short_reward_name(name: str) -> str:
    """Name of a reward without the file or module of a user's own.

    >>> short_reward_name("rewards/mine.py:even"), short_reward_name("accuracy")
    ('even', 'accuracy')
    """
    return name.rpartition(":")[2]


def names_of(runs: list[Run]) -> list[str]:
    """Name of each run: as many trailing parts of its folder as distinguish the runs."""
    return distinct_names([run.folder for run in runs])
