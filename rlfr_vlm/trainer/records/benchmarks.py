"""Measure checkpoints on benchmarks while training. `rlfr-eval` runs in a process of its own, with its own server.

A failure of the measurement is said and never stops training.
"""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlfr_vlm.benchmark_scores import describe, metrics_of
from rlfr_vlm.files import JsonObject, write_text
from rlfr_vlm.options import BenchmarkOptions
from rlfr_vlm.trainer.records.benchmark_calls import FOLDER, Plan

RESULTS_FILE = "benchmarks.jsonl"
WEIGHTS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")  # of a checkpoint, without its training state


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
            try:
                model = linked(checkpoint, folder / "model")
            except OSError as error:
                print(f"benchmarks of checkpoint-{step} failed, training goes on: {error}", flush=True)
                return
            self._running[step] = self._worker.submit(self._measure_copy, model, folder)
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


def linked(checkpoint: Path, folder: Path) -> Path:
    """Make a folder with a checkpoint's model, of hard links where the file system has them; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted({file for pattern in WEIGHTS for file in checkpoint.glob(pattern)}):
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copy2(file, folder / file.name)
    return folder
