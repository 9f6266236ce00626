"""Checkpoints that are complete or absent: written aside, marked, renamed last; old ones go only then.

`checkpoint-N` appears by one rename, with a mark that lists its files. A run that is killed while saving leaves the
folder `.saving`, which the next save empties.
"""

import hashlib
import json
import operator
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rlfr_vlm.config_file import RESOLVED_FILE
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import write_json
from rlfr_vlm.grading.version import grader_version

MARK_FILE = "complete.json"
STATE_FILE = "trainer_state.json"
STAGING_FOLDER = ".saving"
LEAVING_FOLDER = ".removing"
# Files are compared by size and by these many bytes at either end: cut and overwritten ones show, and checking a
# checkpoint of hundreds of gigabytes takes no minutes.
SAMPLED_BYTES = 1 << 20


class ResumableArguments:
    """A mixin for training arguments: their CPU is plain `cpu`.

    With several processes accelerate calls it `cpu:0`, a place that `torch.load` cannot restore to: the resume of
    transformers 5.17 dies of it.
    """

    @property
    def device(self) -> torch.device:
        device: torch.device = super().device  # type: ignore[misc]
        return torch.device("cpu") if device.type == "cpu" else device


class CompleteCheckpoints(Trainer):
    """A `Trainer` whose checkpoints are complete or absent. Put it before the trainer it extends.

    Overrides `train`, `_get_output_dir` and `_save_checkpoint`. A subclass adds its own state in `save_extra_state`.
    """

    _staging: Path | None = None
    _limit: int | None = None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, with the number of checkpoints in our hands alone: transformers prunes by other rules at the end."""
        self._limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super().train(*args, **kwargs)
        finally:
            self.args.save_total_limit = self._limit

    def save_extra_state(self, folder: Path) -> None:
        """Write what transformers does not know into a checkpoint; called on every process."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run_folder = Path(self._get_output_dir(trial))
        name = _name(self.state.global_step)
        self._staging = run_folder / STAGING_FOLDER
        try:
            if self.accelerator.is_main_process:
                shutil.rmtree(self._staging, ignore_errors=True)
                (self._staging / name).mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.save_extra_state(self._staging / name)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                self._finish(self._staging / name, run_folder)
            self.accelerator.wait_for_everyone()
        finally:
            self._staging = None
        if self.state.best_global_step and (best := run_folder / _name(self.state.best_global_step)).is_dir():
            self.state.best_model_checkpoint = str(best)
        if self.accelerator.is_main_process:
            prune(run_folder, self._limit, run_folder / name, self.state.best_model_checkpoint)

    def _finish(self, folder: Path, run_folder: Path) -> None:
        if self.state.best_global_step == self.state.global_step:  # transformers has put down the folder aside
            self.state.best_model_checkpoint = str(run_folder / folder.name)
            self.state.save_to_json(str(folder / STATE_FILE))
        if (run_folder / RESOLVED_FILE).is_file():
            shutil.copy2(run_folder / RESOLVED_FILE, folder)
        mark_complete(folder, self.args.world_size)
        remove(run_folder / folder.name)  # a damaged one
        os.replace(folder, run_folder / folder.name)
        _to_disk(run_folder)


class SaveBetweenRollouts(TrainerCallback):
    """Put off evaluating, saving and stopping until all updates of a rollout are done.

    Responses that still wait for their update are in no checkpoint; one taken between would go on with others. What is
    evaluated is what is saved, so evaluation waits too.

    Args:
        updates: optimiser steps of one rollout.
    """

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.evaluate = self.save = self.stop = False

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Save what is the best so far, or it could not be kept."""
        value = (metrics or {}).get(str(args.metric_for_best_model))
        if value is None or args.save_strategy == "no":
            return
        better = operator.gt if args.greater_is_better else operator.lt
        control.should_save |= state.best_metric is None or better(value, state.best_metric)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            return
        self.evaluate |= control.should_evaluate
        self.save |= control.should_save
        self.stop |= control.should_training_stop
        between = state.global_step % self.updates == 0
        control.should_evaluate = self.evaluate and between
        control.should_save, control.should_training_stop = self.save and between, self.stop and between
        if between:
            self.evaluate = self.save = self.stop = False


def mark_complete(folder: Path, processes: int) -> None:
    """Write the mark: every file with its size and a digest of its ends, and who wrote it."""
    from rlfr_vlm import __version__

    files = {}
    for path in sorted(_files(folder)):
        _to_disk(path)  # before the mark says so
        files[str(path.relative_to(folder))] = _fingerprint(path)
    write_json(
        folder / MARK_FILE,
        {"rlfr_vlm": __version__, "torch": torch.__version__, "grader": grader_version(), "processes": processes,
         "files": files},
    )  # fmt: skip


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when it is complete."""
    try:
        files = dict(read_mark(folder)["files"])
    except FileNotFoundError:
        return f"{MARK_FILE} is missing: it was cut off while being written, or written by another program"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{MARK_FILE} cannot be read ({type(error).__name__})"
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != wanted["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {wanted['bytes']}"
        if _fingerprint(path) != wanted:
            return f"{name} has been changed"
    return None


def newest_complete(run_folder: Path) -> Path | None:
    """The newest complete checkpoint of a run; damaged ones are skipped with a message."""
    for folder in reversed(checkpoints(run_folder)):
        problem = damage(folder)
        if problem is None:
            return folder
        if is_first_process():
            print(f"skipping {folder}: {problem}")
    return None


def is_first_process() -> bool:
    """Whether this process speaks for all; known before any process group is."""
    return int(os.environ.get("RANK", "0")) == 0


def check_complete(folder: Path) -> None:
    """Refuse a checkpoint that is not complete.

    Raises:
        UserError: what is wrong with it.
    """
    if not folder.is_dir():
        raise UserError(f"No checkpoint at {folder}. Name a checkpoint-N folder, or use --resume auto.")
    if problem := damage(folder):
        raise UserError(f"The checkpoint {folder} is not complete: {problem}. Name another, or use --resume auto.")


def read_mark(folder: Path) -> dict[str, Any]:
    """What a checkpoint's mark says: who wrote it, with how many processes, and every file's fingerprint."""
    mark: dict[str, Any] = json.loads((folder / MARK_FILE).read_text(encoding="utf-8"))
    return mark


def checkpoints(run_folder: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first."""
    numbered = [(path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-"), path) for path in
                run_folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]  # fmt: skip
    return [path for _, path in sorted((int(number), path) for number, path in numbered if number.isdigit())]


def _to_disk(path: Path) -> None:
    """Wait until a file or folder is on the disk, and not only in the machine's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(run_folder: Path, limit: int | None, *keep: Path | str | None) -> None:
    """Remove the oldest checkpoints beyond the limit, never the newest one nor those to keep (just saved, best)."""
    folders = checkpoints(run_folder)
    if not limit or limit < 0:
        return
    kept = set(folders[-1:]) | {Path(path) for path in keep if path}
    for folder in folders:
        if len(folders) <= max(limit, len(kept)):
            return
        if folder not in kept:
            remove(folder)
            folders = [path for path in folders if path != folder]


def remove(folder: Path) -> None:
    """Remove a checkpoint: out of sight by one rename, then piece by piece."""
    if not folder.exists():
        return
    leaving = folder.with_name(LEAVING_FOLDER)
    shutil.rmtree(leaving, ignore_errors=True)
    os.replace(folder, leaving)
    shutil.rmtree(leaving, ignore_errors=True)


def _name(step: int) -> str:
    return f"{PREFIX_CHECKPOINT_DIR}-{step}"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != MARK_FILE)


def _fingerprint(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        digest.update(stream.read(SAMPLED_BYTES))
        stream.seek(max(size - SAMPLED_BYTES, 0))
        digest.update(stream.read())
    return {"bytes": size, "ends": digest.hexdigest()[:16]}
