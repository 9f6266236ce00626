"""The files of a run folder; their rows are in schema.py.

run.json        the model, and how each benchmark is asked; a folder holds one model and one way to ask each benchmark
samples.jsonl   one line per answer, written when it arrives
verdicts.jsonl  one line per verdict, by rules or by a judge; later lines of a judge replace earlier ones
failures.jsonl  one line per failed request, with the reason; a sample without an answer is asked for again
scores.json     the scores
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rlfr_eval.run.lines import Lines
from rlfr_eval.schema import (
    AnyVerdict,
    Failure,
    JudgeVerdict,
    RuleVerdict,
    RunRecord,
    Sample,
    Session,
    read_run_record,
    read_verdict_line,
)
from rlfr_vlm.env_settings import MASK
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, make_folder, write_json
from rlfr_vlm.provenance import short_hash
from rlfr_vlm.redaction import redact_json

RUN_FILE, SCORES_FILE = "run.json", "scores.json"
SAMPLES, VERDICTS, FAILURES = "samples.jsonl", "verdicts.jsonl", "failures.jsonl"
FORMAT = 1
DIGEST = "_digest"  # suffix of the key with the hash of a setting whose secrets are masked
LineT = TypeVar("LineT")


def differences(old: JsonObject, new: JsonObject, prefix: str = "") -> list[str]:
    """Differences between two nested settings, as `key: old -> new`.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c: 2 -> 3']
    """
    changes = []
    for key in dict.fromkeys([*old, *new]):
        left, right = old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            changes += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            changes.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return changes


def _changes(old: JsonObject, new: JsonObject, prefix: str) -> list[str]:
    """Differences between a record and the settings of now. Records of older versions have no digests or masks."""
    masked = redact_json(old, MASK)
    assert isinstance(masked, dict)
    comparable = {key: value for key, value in new.items() if not key.endswith(DIGEST) or key in old}
    return differences(masked, comparable, prefix)


def masked_with_digest(key: str, value: object, masked: object) -> JsonObject:
    """Return a setting with its secrets masked and, if that changed it, a hash of the whole for comparisons."""
    return {key: masked} if masked == value else {key: masked, f"{key}{DIGEST}": short_hash(value)}


class RunStore:
    """A run folder. Only one process at a time can open it for writing.

    Attributes:
        run: run.json; empty before `begin`.
    """

    def __init__(self, folder: Path, read_only: bool = False) -> None:
        self.folder, self.read_only = folder, read_only
        self._lock: int | None = None
        if read_only:
            if not (folder / RUN_FILE).is_file():
                raise UserError(f"{folder} is no run folder: it has no {RUN_FILE}. `rlfr-eval lm --out` makes one.")
        else:
            make_folder(folder)
            self._take_lock()
        try:
            self.run: RunRecord = self._read_run()
        except UserError:
            self._release_lock()
            raise
        self.samples, self.verdicts, self.failures = (
            Lines(folder / name, read_only) for name in (SAMPLES, VERDICTS, FAILURES)
        )

    def _take_lock(self) -> None:
        self._lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._release_lock()
            raise UserError(
                f"Another rlfr-eval is writing to {self.folder}. Wait for it, or take another --out."
            ) from None

    def _read_run(self) -> RunRecord:
        path = self.folder / RUN_FILE
        if not path.exists():
            return {}
        try:
            run = read_run_record(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is broken: {error}. Take another --out; the answers beside it are intact."
            ) from None
        version = None if run is None else run.get("format")
        objects = ("model", "benchmarks", "specs", "limits", "data_dirs", "judges")
        whole = run is not None and {"model", "benchmarks", "specs"} <= set(run)
        if (
            run is None
            or version != FORMAT
            or not whole
            or not all(isinstance(run.get(key, {}), dict) for key in objects)
        ):
            raise UserError(f"{path} has format {version}, or is incomplete; this version reads format {FORMAT}.")
        return run

    def __enter__(self) -> "RunStore":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for lines in (self.samples, self.verdicts, self.failures):
            lines.close()
        self._release_lock()

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def begin(
        self,
        model: JsonObject,
        benchmarks: dict[str, JsonObject],
        description: RunRecord,
        session: Session | None = None,
    ) -> None:
        """Write run.json for a new folder, or check that the folder holds the same run.

        Args:
            model: identity of the model; a folder with another one is refused.
            benchmarks: how each is asked. A benchmark that was asked differently before is refused, a new one joins.
            description: more keys; `specs`, `limits` and `data_dirs` join those of the folder, others replace them.
                Problems and samples of a benchmark only grow, so that no later call makes a complete result partial.
            session: the process that works on the run now; every session is kept.

        Raises:
            UserError: the folder holds answers of another model or configuration; the message says what differs.
        """
        earlier = self.run.get("benchmarks", {})
        if self.run and self.run.get("kind", description.get("kind")) != description.get("kind"):
            raise UserError(f"{self.folder} is a run of `rlfr-eval {self.run['kind']}`. Take another --out.")
        changed = _changes(self.run["model"], model, "model.") if self.run else []
        for name, configuration in benchmarks.items():
            changed += _changes(earlier[name], configuration, f"{name}.") if name in earlier else []
        if changed:
            moved = all(change.startswith("model.url:") for change in changed)
            hint = f", or add --moved-from {self.run['model']['url']} if it is the same server" if moved else ""
            raise UserError(
                f"{self.folder} holds answers of another configuration ({'; '.join(changed[:5])}). "
                f"Answers of two configurations are never mixed: take another --out{hint}."
            )
        specs, limits = self.run.get("specs", {}), self.run.get("limits", {})
        joined: RunRecord = {
            "specs": specs
            | {name: _more_samples(specs.get(name), spec) for name, spec in description["specs"].items()},
            "limits": limits
            | {name: _larger(limits.get(name, 0), limit) for name, limit in description["limits"].items()},
            "data_dirs": {**self.run.get("data_dirs", {}), **description.get("data_dirs", {})},
        }
        own_keys: RunRecord = {
            "format": FORMAT,
            "model": self.run.get("model", model),
            "benchmarks": {**benchmarks, **earlier},
        }
        self.run = {**self.run, **own_keys, **description, **joined}
        self.save_run({"sessions": [*self.run.get("sessions", []), *([session] if session else [])]})

    def save_run(self, changes: RunRecord) -> None:
        """Set keys of run.json and write it."""
        self.run.update(changes)
        write_json(self.folder / RUN_FILE, self.run)

    def config_of(self, benchmark: str) -> str:
        """Hash that ties an answer to the way it was asked for."""
        return short_hash([self.run["model"], self.run["benchmarks"][benchmark]])

    def answers(self) -> Iterator[Sample]:
        """Every valid sample, each id once: the first answer counts."""
        configs = {name: self.config_of(name) for name in self.run.get("benchmarks", {})}
        seen: set[str] = set()
        for sample in _read(self.samples, Sample.read):
            if sample.id not in seen and configs.get(sample.benchmark) == sample.config:
                seen.add(sample.id)
                yield sample

    def all_verdicts(self) -> Iterator[AnyVerdict]:
        """Every complete verdict, in the order in which they were written."""
        return _read(self.verdicts, read_verdict_line)

    def rule_verdicts(self) -> Iterator[RuleVerdict]:
        """Every verdict by rules."""
        return _read(self.verdicts, RuleVerdict.read)

    def judge_verdicts(self) -> Iterator[JudgeVerdict]:
        """Every verdict by a judge."""
        return _read(self.verdicts, JudgeVerdict.read)

    def failed_requests(self) -> Iterator[Failure]:
        """Every request that failed."""
        return _read(self.failures, Failure.read)

    def add_sample(self, sample: Sample) -> None:
        """Append an answer."""
        self.samples.append(sample.write())

    def add_verdicts(self, *verdicts: AnyVerdict) -> None:
        """Append verdicts."""
        self.verdicts.append(*(verdict.write() for verdict in verdicts))

    def add_failure(self, failure: Failure) -> None:
        """Append a failed request."""
        self.failures.append(failure.write())


def _larger(first: int | None, second: int | None) -> int | None:
    """Return the larger number of problems; None stands for all."""
    return None if first is None or second is None else max(first, second)


def _more_samples(earlier: JsonObject | None, spec: JsonObject) -> JsonObject:
    """Return the fields of a benchmark, with the samples of the earlier ones if they are more."""
    if not earlier or "sampling" not in earlier or "sampling" not in spec:
        return spec
    samples = max(spec["sampling"]["samples"], earlier["sampling"]["samples"])
    return {**spec, "sampling": {**spec["sampling"], "samples": samples}}


def _read(lines: Lines, read: Callable[[JsonObject], LineT | None]) -> Iterator[LineT]:
    """Lines that `read` accepts; a value of another type makes a line damaged."""
    for row in lines:
        try:
            line = read(row)
        except (ValueError, TypeError, AttributeError):
            lines.damaged += 1
            continue
        if line is not None:
            yield line
