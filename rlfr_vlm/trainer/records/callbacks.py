"""Trainer callbacks: step the flow field, stop on Ctrl-C, write metrics and alerts, show progress."""

import json
import math
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import ClassVar

import torch
from torch import nn
from tqdm import tqdm
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlfr_vlm.files import write_text
from rlfr_vlm.models.vision import mark_ban_as_whole
from rlfr_vlm.trainer.held_out import describe_evaluation
from rlfr_vlm.trainer.records.alerts import ALERTS_FILE, Alert, AlertMonitor, truncate_alerts

METRICS_FILE = "metrics.jsonl"
Handler = Callable[[int, FrameType | None], object] | int | None  # as returned by `signal.signal`


class FlowStep(TrainerCallback):
    """Step the flow field's optimiser after each optimiser step of the policy."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.step()


class OnTrainBegin(TrainerCallback):
    """Call a function when training begins, after a checkpoint was loaded."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.function = function

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.function()


class StopOnInterrupt(TrainerCallback):
    """On the first Ctrl-C, finish the step (in RL the rollout's updates), save and stop; on the second, stop at once.

    Attributes:
        interrupted: whether this or another rank received the signal.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._signalled = False  # on this rank
        self._previous: Handler = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if threading.current_thread() is threading.main_thread():  # handlers can only be set there
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = self.interrupted = True
        message = "interrupted: finishing the current step and saving a checkpoint; press Ctrl-C again to stop at once"
        print(f"\n{message}", file=sys.stderr)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        # Ranks may receive the signal in different steps, but must stop in the same one.
        if torch.distributed.is_initialized():
            interrupted = torch.tensor(float(self.interrupted), device=args.device)
            torch.distributed.all_reduce(interrupted, op=torch.distributed.ReduceOp.MAX)
            self.interrupted = bool(interrupted)
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


class MetricsFile(TrainerCallback):
    """Append every logged step to `metrics.jsonl` immediately."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / METRICS_FILE

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if not state.is_world_process_zero or not self.path.exists():
            return
        # Keep what a resumed run logged up to its checkpoint; a new run starts empty.
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(self.path, "".join(line for line in lines if 0 < _logged_step(line) <= state.global_step))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        finite = {k: v for k, v in logs.items() if not (isinstance(v, float) and not math.isfinite(v))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **finite}) + "\n")


def _logged_step(line: str) -> int:
    """Return the step of a line, or 0 if the line was cut off by a kill."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return 0


class AlertsFile(TrainerCallback):
    """Check each logged step for known problems; print new alerts and append them to `alerts.jsonl`."""

    def __init__(self, directory: str) -> None:
        self.folder = Path(directory)
        self.monitor = AlertMonitor()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if not state.is_world_process_zero:
            return
        metrics = self.folder / METRICS_FILE
        for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else ():
            self.monitor.observe(json.loads(line))  # history of a resumed run; `MetricsFile` has already cut it
        truncate_alerts(self.folder, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        for name, message in self.monitor.observe(logs):
            tqdm.write(f"step {state.global_step}: {message}", file=sys.stderr)
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / ALERTS_FILE).open("a", encoding="utf-8") as stream:
                stream.write(Alert(state.global_step, name, message).to_line())


class ProgressLine(TrainerCallback):
    """A progress bar with the remaining time and the most important metrics, and a line for each evaluation."""

    LABELS: ClassVar[dict[str, str]] = {"outcome/mean": "outcome", "loss": "loss", "eval_loss": "held-out loss"}

    def __init__(self, description: str) -> None:
        self.description = description

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        disabled = not state.is_world_process_zero
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.description, unit="step", disable=disabled
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        values = {
            label: f"{logs[key]:.3f}" for key, label in self.LABELS.items() if logs and logs.get(key) is not None
        }
        if values:
            self.bar.set_postfix(values)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Print the held-out accuracy above the bar; fitting a field measures none."""
        if state.is_world_process_zero and metrics and "eval_greedy" in metrics:
            tqdm.write(f"step {state.global_step}: {describe_evaluation(metrics)}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.bar.close()


def use_own_progress(trainer: Trainer) -> None:
    """Remove transformers' progress callbacks, which print every metric of every step, in favour of `ProgressLine`."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


class MarkBan(TrainerCallback):
    """Mark the vision-token ban as unsharded after DeepSpeed or FSDP has wrapped the policy."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        mark_ban_as_whole(model)
