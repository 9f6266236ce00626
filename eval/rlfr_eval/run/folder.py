"""A run folder: who was asked what and how, every answer, every verdict.

run.json        what the run is; a folder holds one model and one way to ask each benchmark
samples.jsonl   one line per answer, written when it arrives
verdicts.jsonl  one line per verdict, by rules or by a judge; later lines of a judge replace earlier ones
failures.jsonl  one line per request that failed, with the reason; what has no answer yet is asked again
scores.json     what came out
"""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlfr_eval.run.lines import Lines
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import make_folder, write_json
from rlfr_vlm.provenance import short_hash

RUN_FILE, SCORES_FILE = "run.json", "scores.json"
SAMPLES, VERDICTS, FAILURES = "samples.jsonl", "verdicts.jsonl", "failures.jsonl"
FORMAT = 1


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two nested settings, as `key: old -> new`.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c: 2 -> 3']
    """
    found = []
    for key in dict.fromkeys([*old, *new]):
        left, right = old.get(key), new.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            found += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            found.append(f"{prefix}{key}: {left!r} -> {right!r}")
    return found


class RunStore:
    """The run folder, open for one process at a time."""

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
            self.run: dict[str, Any] = self._read_run()
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

    def _read_run(self) -> dict[str, Any]:
        path = self.folder / RUN_FILE
        if not path.exists():
            return {}
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(
                f"{path} is broken: {error}. Take another --out; the answers beside it are intact."
            ) from None
        found = run.get("format") if isinstance(run, dict) else None
        if found != FORMAT or not {"model", "benchmarks", "specs"} <= set(run):
            raise UserError(f"{path} has format {found}, or is incomplete; this version reads format {FORMAT}.")
        return run

    def __enter__(self) -> "RunStore":
        return self

    def __exit__(self, *exception: Any) -> None:
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
        model: dict[str, Any],
        benchmarks: dict[str, dict[str, Any]],
        about: dict[str, Any],
        session: dict[str, Any] | None = None,
    ) -> None:
        """Say what this run is, or check that the folder is the same run.

        Args:
            model: identity of the policy; another one is refused.
            benchmarks: how each is asked; asked otherwise than before is refused, new ones join.
            about: for the record; the latest stands, `specs`, `limits` and `data_dirs` join.
            session: who works on it now; every session stays on record.

        Raises:
            UserError: the folder holds answers of another model or configuration; says what differs.
        """
        known, about = self.run.get("benchmarks", {}), dict(about)
        if self.run and self.run.get("kind", about.get("kind")) != about.get("kind"):
            raise UserError(f"{self.folder} is a run of `rlfr-eval {self.run['kind']}`. Take another --out.")
        changed = differences(self.run["model"], model, "model.") if self.run else []
        for name, wanted in benchmarks.items():
            changed += differences(known[name], wanted, f"{name}.") if name in known else []
        if changed:
            raise UserError(
                f"{self.folder} holds answers of another configuration ({'; '.join(changed[:5])}). "
                "Answers of two configurations are never mixed: take another --out."
            )
        joined = {key: {**self.run.get(key, {}), **about.pop(key, {})} for key in ("specs", "limits", "data_dirs")}
        sessions = [*self.run.get("sessions", []), *([session] if session else [])]
        self.run |= {"format": FORMAT, "model": model, "benchmarks": {**known, **benchmarks}, **joined, **about}
        self.save_run(sessions=sessions)

    def save_run(self, **more: Any) -> None:
        """Write run.json, with more keys."""
        self.run.update(more)
        write_json(self.folder / RUN_FILE, self.run)

    def config_of(self, benchmark: str) -> str:
        """Hash that ties an answer to the way it was asked for."""
        return short_hash([self.run["model"], self.run["benchmarks"][benchmark]])

    def answers(self) -> Iterator[dict[str, Any]]:
        """Every valid sample line, each sample once: the first answer stands."""
        configs = {name: self.config_of(name) for name in self.run.get("benchmarks", {})}
        seen: set[str] = set()
        for row in self.samples:
            if row.get("id") not in seen and configs.get(row.get("benchmark", "")) == row.get("config"):
                seen.add(row["id"])
                yield row
