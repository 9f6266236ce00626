"""Calls of `rlfr-eval` that measure a checkpoint."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.options import BenchmarkOptions

FOLDER = "benchmarks"  # of a run
COMMAND = (sys.executable, "-m", "rlfr_eval.cli")
LAST_LINES = 3  # of a log, in the message about a failure


@dataclass(frozen=True)
class Plan:
    """The calls of `rlfr-eval` that measure one checkpoint.

    Attributes:
        text, multimodal: names of benchmarks for `rlfr-eval lm` and `rlfr-eval vlm`.
        options: further options of both.
        environment: of the processes, beside that of training.
    """

    text: tuple[str, ...]
    multimodal: tuple[str, ...]
    options: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, options: BenchmarkOptions) -> "Plan | None":
        """The plan of a run; None without benchmarks.

        Raises:
            UserError: `eval_benchmark_args` cannot be split into words.
        """
        if not options.eval_benchmarks:
            return None
        try:
            words = shlex.split(options.eval_benchmark_args)
        except ValueError as error:
            raise UserError(f"eval_benchmark_args is {options.eval_benchmark_args!r}: {error}.") from None
        if options.eval_benchmark_limit:
            words += ["--limit", str(options.eval_benchmark_limit)]
        known = _text_benchmarks()
        is_text = {name: _is_text(name, known) for name in options.eval_benchmarks}
        environment = {}
        if options.eval_benchmark_devices:
            environment["CUDA_VISIBLE_DEVICES"] = options.eval_benchmark_devices
        return cls(
            tuple(name for name, text in is_text.items() if text),
            tuple(name for name, text in is_text.items() if not text),
            tuple(words),
            environment,
        )

    def commands(self, model: Path, folder: Path) -> dict[Path, list[str]]:
        """Run folder of each call -> its command."""
        calls = {"lm": ("--suite", self.text), "vlm": ("--data", self.multimodal)}
        return {
            folder / kind: [
                *COMMAND,
                kind,
                flag,
                *names,
                "--model",
                str(model),
                "--out",
                str(folder / kind),
                *self.options,
            ]
            for kind, (flag, names) in calls.items()
            if names
        }

    def check(self, model: str, output_dir: str) -> None:
        """Let `rlfr-eval` say what it would do, so that a wrong name stops the run before it trains.

        Args:
            model: the initial policy.
            output_dir: of the run, where nothing is written.

        Raises:
            UserError: with its message.
        """
        for command in self.commands(Path(model), Path(output_dir) / FOLDER / "check").values():
            done = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"eval_benchmarks cannot be measured: {done.stderr.strip()}")

    def measure(self, model: Path, folder: Path) -> tuple[JsonObject, list[str]]:
        """Measure a model; returns the scores by benchmark, and what failed."""
        scores: JsonObject = {}
        failures: list[str] = []
        for run, command in self.commands(model, folder).items():
            run.parent.mkdir(parents=True, exist_ok=True)
            log = run.parent / f"{run.name}.log"
            with log.open("w", encoding="utf-8") as stream:
                done = subprocess.run(
                    command, stdout=stream, stderr=stream, env={**os.environ, **self.environment}, check=False
                )
            measured: JsonObject = {}
            with contextlib.suppress(OSError, ValueError, KeyError):
                measured = json.loads((run / "scores.json").read_text(encoding="utf-8"))["benchmarks"]
            scores |= measured
            if done.returncode or not measured:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
                failures.append(f"rlfr-eval {run.name} ended with {done.returncode} (log: {log}): {' '.join(lines)}")
        return scores, failures


def _text_benchmarks() -> set[str]:
    """Names of text benchmarks and suites.

    Raises:
        UserError: `rlfr-eval` cannot be run.
    """
    done = subprocess.run([*COMMAND, "list", "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"eval_benchmarks needs rlfr-eval, which ended with {done.returncode}: {done.stderr.strip()}")
    known = json.loads(done.stdout)
    return {*known["benchmarks"], *known["suites"]}


def _is_text(name: str, known: set[str]) -> bool:
    """Whether `rlfr-eval lm` measures a benchmark; the others are VLMEvalKit's."""
    return name in known or name.endswith(".toml") or name.startswith("reasoning_gym:")
