"""Measure checkpoints on benchmarks while training. `rlfr-eval` runs in a process of its own, with its own server.

A failure of the measurement is said and never stops training.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_text
from rlfr_vlm.options import BenchmarkOptions

FOLDER, RESULTS_FILE = "benchmarks", "benchmarks.jsonl"
COMMAND = (sys.executable, "-m", "rlfr_eval.cli")
WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")  # of a checkpoint, without its training state
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
            try:
                scores |= json.loads((run / "scores.json").read_text(encoding="utf-8"))["benchmarks"]
            except (OSError, ValueError, KeyError):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
                failures.append(f"rlfr-eval {run.name} ended with {done.returncode} (log: {log}): {' '.join(lines)}")
        return scores, failures


class MeasureCheckpoints(TrainerCallback):
    """Measures saved checkpoints, and logs scores with their intervals.

    Args:
        plan: what to run.
        options: when, and whether training waits.
        output_dir: of the run; results go to `benchmarks/` and `benchmarks.jsonl` there.
        log: logs numbers of the run.
    """

    def __init__(
        self, plan: Plan, options: BenchmarkOptions, output_dir: str, log: Callable[[dict[str, float]], None]
    ) -> None:
        self.plan, self.options, self.log = plan, options, log
        self.output_dir = Path(output_dir)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="benchmarks")
        self._running: dict[int, Future[tuple[JsonObject, list[str]]]] = {}  # by step, in the order of steps

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Forget what was measured after the checkpoint that the run goes on from."""
        if not state.is_world_process_zero:
            return
        lines = [line for line in self._results() if line["step"] <= state.global_step]
        if (self.output_dir / RESULTS_FILE).exists():
            write_text(self.output_dir / RESULTS_FILE, "".join(json.dumps(line) + "\n" for line in lines))
        for folder in (self.output_dir / FOLDER).glob("step-*"):
            if int(folder.name.removeprefix("step-")) > state.global_step:
                shutil.rmtree(folder)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Measure the checkpoint that was saved now, if it is its turn."""
        step, every = state.global_step, self.options.eval_benchmark_steps
        if not state.is_world_process_zero or (every and step % every):
            return
        checkpoint, folder = self.output_dir / f"checkpoint-{step}", self.output_dir / FOLDER / f"step-{step}"
        names = ", ".join(self.plan.text + self.plan.multimodal)
        print(f"measuring checkpoint-{step}: {names} (logs in {folder})", flush=True)
        if self.options.eval_benchmark_wait:
            self._running[step] = self._worker.submit(self.plan.measure, checkpoint, folder)
            self._running[step].exception()  # waits
        else:  # the checkpoint may be pruned meanwhile
            self._running[step] = self._worker.submit(self._measure_copy, linked(checkpoint, folder / "model"), folder)
        self._take(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Log measurements that ended meanwhile."""
        self._take(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Wait for measurements that still run."""
        if any(not future.done() for future in self._running.values()):
            print(f"waiting for the benchmarks of {len(self._running)} checkpoints", flush=True)
        for future in self._running.values():
            future.exception()
        self._take(state)

    def _measure_copy(self, model: Path, folder: Path) -> tuple[JsonObject, list[str]]:
        try:
            return self.plan.measure(model, folder)
        finally:
            shutil.rmtree(model, ignore_errors=True)

    def _take(self, state: TrainerState) -> None:
        """Log and store what is measured."""
        for step in [step for step, future in self._running.items() if future.done()]:
            future = self._running.pop(step)
            error = future.exception()
            scores, failures = ({}, [repr(error)]) if error is not None else future.result()
            for failure in failures:
                print(f"benchmarks of checkpoint-{step} failed, training goes on: {failure}", flush=True)
            if not scores:
                continue
            numbers = metrics_of(scores)
            write_text(
                self.output_dir / RESULTS_FILE,
                "".join(json.dumps(line) + "\n" for line in [*self._results(), {"step": step, **numbers}]),
            )
            print(f"checkpoint-{step}: {describe(scores)}", flush=True)
            self.log({"benchmark_step": float(step), **numbers})
            self._note_best(state)

    def _note_best(self, state: TrainerState) -> None:
        """Note the checkpoint that is best on the first benchmark, the earliest of equals; pruning keeps it."""
        results = self._results()
        first = next(name for name in results[0] if name != "step")
        measured = {line["step"]: line[first] for line in results if first in line}
        if measured and self.options.eval_benchmark_best:
            best = max(measured, key=lambda step: (measured[step], -step))
            state.best_metric = measured[best]
            state.best_model_checkpoint = str(self.output_dir / f"checkpoint-{best}")

    def _results(self) -> list[JsonObject]:
        try:
            lines = (self.output_dir / RESULTS_FILE).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines]


def metrics_of(scores: Mapping[str, JsonObject]) -> dict[str, float]:
    """Numbers to log of scores.json's benchmarks: accuracy, its interval, and the share undecided or missing.

    >>> metrics_of({"toy": {"accuracy": 0.5, "ci95": [0.1, 0.9], "undecided": 1, "missing": 1, "answers_expected": 8}})
    {'benchmark/toy': 0.5, 'benchmark/toy_low': 0.1, 'benchmark/toy_high': 0.9, 'benchmark/toy_undecided': 0.25}
    """
    numbers: dict[str, float] = {}
    for name, score in scores.items():
        if score["accuracy"] is not None:
            low, high = score["ci95"]
            numbers |= {
                f"benchmark/{name}": score["accuracy"],
                f"benchmark/{name}_low": low,
                f"benchmark/{name}_high": high,
            }
        undecided = score["undecided"] + score["missing"]
        numbers[f"benchmark/{name}_undecided"] = undecided / max(score["answers_expected"], 1)
    return numbers


def describe(scores: Mapping[str, JsonObject]) -> str:
    """Return the scores in one line.

    >>> describe({"toy": {"accuracy": 0.5, "ci95": [0.1, 0.9], "undecided": 1, "missing": 0, "answers_expected": 8}})
    'toy 0.500 [0.100, 0.900], 1 of 8 undecided'
    """
    parts = []
    for name, score in scores.items():
        undecided, answers = score["undecided"] + score["missing"], score["answers_expected"]
        number = "undecided"
        if score["accuracy"] is not None:
            number = f"{score['accuracy']:.3f} [{score['ci95'][0]:.3f}, {score['ci95'][1]:.3f}]"
        parts.append(f"{name} {number}" + (f", {undecided} of {answers} undecided" if undecided else ""))
    return "; ".join(parts)


def linked(checkpoint: Path, folder: Path) -> Path:
    """Make a folder with a checkpoint's model, of hard links where the file system has them; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted({file for pattern in WEIGHTS for file in checkpoint.glob(pattern)}):
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copy2(file, folder / file.name)
    return folder


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


def _is_text(name: str, known: Sequence[str] | set[str]) -> bool:
    """Whether `rlfr-eval lm` measures a benchmark; the others are VLMEvalKit's."""
    return name in known or name.endswith(".toml") or name.startswith("reasoning_gym:")
