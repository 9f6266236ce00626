"""The definition of a sweep: which runs it has, how each is started, and the file that records it."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlfr_vlm.config_file import Settings, names_given, read_settings, write_settings_file
from rlfr_vlm.errors import UserError
from rlfr_vlm.methods import REFUSED_ELSEWHERE, part_that_reads, reads
from rlfr_vlm.redaction import PLACEHOLDER, is_secret, redact_command
from rlfr_vlm.sweep.axes import Axis, arguments_of

DEFINITION_FILE = "sweep.yaml"
LONGEST_NAME = 100  # characters of a folder
OWN_SETTINGS = {
    "method": "methods come from --methods",
    "seed": "seeds come from --seeds",
    "output_dir": "each run has its own folder in --out",
    "resume": "a sweep goes on by itself",
    "resume_from_checkpoint": "a sweep goes on by itself",
    "eval_only": "a sweep trains",
    "config": "a sweep has one --config",
}


@dataclass(frozen=True)
class Cell:
    """A method with one value of each axis that it reads. Its runs differ only in their seed.

    Attributes:
        name: name of its folder.
        settings: axis -> value, as typed.
    """

    name: str
    method: str
    settings: dict[str, str]


@dataclass(frozen=True)
class SweepRun:
    """One run.

    Attributes:
        arguments: of `rlfr train`.
    """

    cell: Cell
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.cell.name}/seed-{self.seed}"


@dataclass(frozen=True)
class Sweep:
    """Everything that decides which runs there are.

    Attributes:
        options: further options of `rlfr train`, the same for all runs.
    """

    out: Path
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    axes: tuple[Axis, ...] = ()
    config: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = names_given(self.options)
        for name, reason in OWN_SETTINGS.items():
            if name in given or any(axis.key == name for axis in self.axes):
                raise UserError(f"{name} cannot be set in a sweep: {reason}.")
        if both := next((axis.key for axis in self.axes if axis.key in given), None):
            raise UserError(f"{both} is in --set and also given as --{both}. Leave one of them out.")

    @cached_property
    def cells(self) -> list[Cell]:
        """Methods and settings in the order given; an axis that a method does not read does not multiply its runs."""
        settings = [
            (method, {axis.key: value for axis, value in zip(axes, values, strict=True)})
            for method in self.methods
            for axes in [[axis for axis in self.axes if reads(method, axis.key)]]
            for values in itertools.product(*(axis.values for axis in axes))
        ]
        names = _distinct([_folder_name(method, values) for method, values in settings])
        return [Cell(name, *setting) for name, setting in zip(names, settings, strict=True)]

    @cached_property
    def runs(self) -> list[SweepRun]:
        """All runs. Seeds come one after the other, so that a sweep that is stopped has whole pairs."""
        return [self._run(cell, seed) for seed in self.seeds for cell in self.cells]

    def _run(self, cell: Cell, seed: int) -> SweepRun:
        folder = self.out / cell.name / f"seed-{seed}"
        own = ["--method", cell.method, "--seed", str(seed), "--output_dir", str(folder)]
        axes = [argument for key, value in cell.settings.items() for argument in arguments_of(key, value)]
        unread = [name for name in REFUSED_ELSEWHERE if name in self._given and not reads(cell.method, name)]
        unset = [argument for name in unread for argument in (f"--{name}", "" if name == "flow_path" else "0")]
        return SweepRun(cell, seed, folder, (*self._config_arguments, *self.options, *own, *axes, *unset))

    @property
    def _config_arguments(self) -> list[str]:
        return ["--config", self.config] if self.config else []

    @cached_property
    def _given(self) -> set[str]:
        """Names of the settings that the configuration file or an option sets for all runs."""
        return names_given([*self._config_arguments, *self.options])

    def notes(self) -> Iterator[str]:
        """Say which axes a method does not read."""
        for axis in self.axes:
            if unread := [method for method in self.methods if not reads(method, axis.key)]:
                verb = "has" if len(unread) == 1 else "have"
                yield (
                    f"{axis.key} is read only by methods with {part_that_reads(axis.key)}; {', '.join(unread)} {verb} "
                    "no run for each of its values"
                )

    def definition(self) -> Settings:
        """Return the content of `sweep.yaml`; secrets are masked."""
        settings = read_settings(Path(self.config)) if self.config else {}
        return {
            "methods": list(self.methods),
            "seeds": list(self.seeds),
            "set": {axis.key: list(axis.values) for axis in self.axes},
            "config": self.config,
            "config_settings": {
                str(name): PLACEHOLDER if is_secret(str(name)) and value else value for name, value in settings.items()
            },
            "options": redact_command(self.options),
        }

    def write(self) -> None:
        """Write `sweep.yaml`."""
        write_settings_file(self.out / DEFINITION_FILE, self.definition())

    def refuse_other(self) -> None:
        """Refuse a folder that holds another sweep, or runs of no sweep.

        Raises:
            UserError: names what differs, with both values.
        """
        path = self.out / DEFINITION_FILE
        if not path.is_file():
            if run := next((run for run in self.runs if run.folder.exists()), None):
                raise UserError(
                    f"{run.folder} is there already, but {path}, which says what it is a run of, is not. Name another "
                    "--out."
                )
            return
        if changes := changes_of(read_settings(path), self.definition()):
            raise UserError(
                f"{self.out} holds a sweep with other settings ({'; '.join(changes)}). Give the same ones to go on, "
                "or name another --out."
            )


def changes_of(written: Settings, current: Settings) -> list[str]:
    """Describe how a definition differs from the written one; the name of the configuration file does not count.

    >>> changes_of({"seeds": [1, 2], "config": "a"}, {"seeds": [1, 2, 3], "config": "b"})
    ['seeds: [1, 2] -> [1, 2, 3]']
    """
    changes = []
    for name in [key for key in current if key != "config"]:
        before, now = written.get(name), current[name]
        if isinstance(now, dict):
            before = before if isinstance(before, dict) else {}
            for key in [key for key in {**before, **now} if before.get(key, "unset") != now.get(key, "unset")]:
                changes.append(f"{key}: {before.get(key, 'unset')} -> {now.get(key, 'unset')}")
        elif before != now:
            changes.append(f"{name}: {before} -> {now}")
    return changes


def _folder_name(method: str, settings: dict[str, str]) -> str:
    name = "-".join([method, *(f"{key}={value}" for key, value in settings.items())])
    return re.sub(r"[^\w.+=-]+", "_", name)[:LONGEST_NAME]


def _distinct(names: list[str]) -> list[str]:
    """Number the names that are there several times, which are different values that a folder cannot show.

    >>> _distinct(["a", "b", "a"])
    ['a~1', 'b', 'a~2']
    """
    counts, seen = Counter(names), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        result.append(f"{name}~{seen[name]}" if counts[name] > 1 else name)
    return result
