"""Small trainer callbacks: step the field, stop on Ctrl-C, write metrics, show progress."""

import json
import math
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from rlfr_vlm.files import write_text
from rlfr_vlm.models.vision import mark_ban_as_whole
from rlfr_vlm.trainer.records.alerts import Watchdogs

METRICS_FILE = "metrics.jsonl"
WATCHDOGS_FILE = "watchdogs.jsonl"


class FlowStep(TrainerCallback):
    """Step the flow field whenever the policy's optimiser steps."""

    def __init__(self, step: Callable[[], None]) -> None:
        self.step = step

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step()


class StopOnInterrupt(TrainerCallback):
    """On the first Ctrl-C finish the step (in RL the rollout's updates), save and stop; the second stops at once."""

    def __init__(self) -> None:
        self.interrupted = False  # here, or in another process
        self._signalled = False  # here
        self._previous: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # only there can a handler be set
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = self.interrupted = True
        print("\ninterrupted: finishing what is under way and saving a checkpoint; press Ctrl-C again to stop at once",
              file=sys.stderr)  # fmt: skip

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():  # the signal may reach processes on either side of a step's end
            told = torch.tensor(float(self.interrupted), device=args.device)
            torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
            self.interrupted = bool(told)
        if self.interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


class MetricsFile(TrainerCallback):
    """Append every logged step to `metrics.jsonl`, at once."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / METRICS_FILE

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not self.path.exists():
            return
        # of a resumed run, what was logged up to its checkpoint; of a new one, nothing
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(self.path, "".join(line for line in lines if 0 < _step(line) <= state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        finite = {k: v for k, v in logs.items() if not (isinstance(v, float) and not math.isfinite(v))}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": state.global_step, **finite}) + "\n")


def _step(line: str) -> int:
    """The step of a line; 0 of one that was cut off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return 0


class Watch(TrainerCallback):
    """Let the watch-dogs look at each logged step; what they say is printed and kept in `watchdogs.jsonl`."""

    def __init__(self, directory: str) -> None:
        self.path = Path(directory) / WATCHDOGS_FILE
        self.dogs = Watchdogs()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        metrics = self.path.with_name(METRICS_FILE)
        for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else ():
            self.dogs.observe(json.loads(line))  # what they have seen of a resumed run; `MetricsFile` has cut it
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_text(self.path, "".join(line for line in lines if 0 < _step(line) <= state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        for dog, message in self.dogs.observe(logs):
            tqdm.write(f"step {state.global_step}: {message}", file=sys.stderr)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": state.global_step, "dog": dog, "message": message}) + "\n")


class ProgressLine(TrainerCallback):
    """One progress bar with time left and the few numbers one watches."""

    SHOWN: ClassVar[dict[str, str]] = {"outcome/mean": "outcome", "loss": "loss", "eval_loss": "held-out loss"}

    def __init__(self, description: str) -> None:
        self.description = description

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        disabled = not state.is_world_process_zero
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.description, unit="step",
                        disable=disabled)  # fmt: skip

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        shown = {label: f"{logs[key]:.3f}" for key, label in self.SHOWN.items() if logs and logs.get(key) is not None}
        if shown:
            self.bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.close()


def quiet(trainer: Any) -> None:
    """Leave the terminal to `ProgressLine`: transformers' own bars print every metric of every step."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)


class MarkBan(TrainerCallback):
    """Once DeepSpeed or FSDP has taken the policy over, mark the ban of vision tokens as whole."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        mark_ban_as_whole(model)
