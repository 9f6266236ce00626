"""What a training run left in its folder, read back; one that goes on or was killed is read as far as it is."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlfr_vlm.errors import UserError, nearest

# As the trainer names them; this package knows files, not the trainer.
METRICS_FILE, WATCHDOGS_FILE, RUN_FILE, CONFIG_FILE = "metrics.jsonl", "watchdogs.jsonl", "run.json", "config.yaml"
ROLLOUTS = "rollouts/rank*.jsonl"
# Settings that do not make another experiment of a run.
SEEDS_AND_PLACES = frozenset({
    "seed", "data_seed", "output_dir", "logging_dir", "run_name", "report_to", "local_rank", "resume_from_checkpoint",
})  # fmt: skip


@dataclass
class Run:
    """A run's files.

    Attributes:
        metrics: one line per logged step.
        groups: the rollout log's lines, by step.
        cut_lines: lines that could not be read, such as the last one of a killed run.
    """

    folder: Path
    config: dict[str, Any]
    record: dict[str, Any]
    metrics: list[dict[str, Any]]
    barks: list[dict[str, Any]]
    groups: list[dict[str, Any]] = field(default_factory=list)
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
        """Whether the watch-dogs looked at this run."""
        return bool(self.config.get("watch", True))

    def is_right(self, rewards: dict[str, float | None]) -> bool | None:
        """Whether a response with these rewards is right: by the verifier's reward, else the first; None undecided."""
        name = next((one for one in rewards if "accuracy" in one), next(iter(rewards), None))
        value = None if name is None else rewards[name]
        return None if value is None else value > float(self.config.get("flow_accept_threshold", 0.5))


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: it is none, or nothing has been logged in it yet.
    """
    if not folder.is_dir():
        near = nearest(folder.name, [one.name for one in folder.parent.glob("*")]) if folder.parent.is_dir() else ""
        raise UserError(f"There is no folder {folder}.{near} Give the output_dir of a run of `rlfr train`.")
    metrics, cut = read_lines(folder / METRICS_FILE)
    groups: list[dict[str, Any]] = []
    for path in sorted(folder.glob(ROLLOUTS)):
        lines, broken = read_lines(path)
        groups, cut = groups + lines, cut + broken
    if not metrics and not groups:
        inside = sorted({str(path.parent.relative_to(folder)) for path in folder.rglob(METRICS_FILE)})
        hint = f" Its runs are {', '.join(inside)}." if inside else " Give the output_dir of a run of `rlfr train`."
        raise UserError(f"{folder} has no {METRICS_FILE}, or it is empty: no step of a run has been logged.{hint}")
    barks, _ = read_lines(folder / WATCHDOGS_FILE)
    return Run(folder, _read_yaml(folder / CONFIG_FILE), _read_json(folder / RUN_FILE), metrics, barks,
               sorted(groups, key=lambda group: group["step"]), cut)  # fmt: skip


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects of a file, one per line, and how many lines are none; nothing where there is no file."""
    if not path.exists():
        return [], 0
    found, cut = [], 0
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict) and "step" in value:
                found.append(value)
            elif line.strip():
                cut += 1
    return found, cut


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def names_of(runs: list[Run]) -> list[str]:
    """A name for each run, by as much of its folder's path as tells them apart.

    >>> def at(path): return Run(Path(path), {}, {}, [], [])
    >>> names_of([at("out/seed1/rlvr"), at("out/seed1/rlfr"), at("out/seed2/rlfr")])
    ['seed1/rlvr', 'seed1/rlfr', 'seed2/rlfr']
    """
    parts = [run.folder.absolute().parts for run in runs]
    length = 1
    while length < max(map(len, parts)) and len({one[-length:] for one in parts}) < len(parts):
        length += 1
    return ["/".join(one[-length:]) for one in parts]
