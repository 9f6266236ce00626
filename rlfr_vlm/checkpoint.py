"""Atomic checkpoints: written to a staging folder, marked as complete, then renamed.

`checkpoint-N` appears by one rename and contains a mark that lists its files. Old checkpoints are deleted only
afterwards. A run that is killed while saving leaves the folder `.saving`, which the next save empties.
"""

import hashlib
import json
import operator
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from rlfr_vlm.config_file import RESOLVED_FILE
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_json
from rlfr_vlm.grading.version import grader_version

MARK_FILE = "complete.json"
STATE_FILE = "trainer_state.json"
STAGING_FOLDER = ".saving"
REMOVAL_FOLDER = ".removing"
# Bytes hashed at either end of a file, besides its size: this detects truncated and overwritten files without reading
# hundreds of gigabytes.
SAMPLED_BYTES = 1 << 20


class ResumableArguments:
    """Mixin for training arguments that names the CPU device `cpu`.

    With several processes accelerate names it `cpu:0`, which `torch.load` rejects as a map location, so that resuming
    fails in transformers 5.17.
    """

    @property
    def device(self) -> torch.device:
        device: torch.device = super().device  # type: ignore[misc]
        return torch.device("cpu") if device.type == "cpu" else device


class CompleteCheckpoints(Trainer):
    """Mixin for a `Trainer` that makes its checkpoints atomic. List it before the trainer it extends.

    Overrides `train`, `_get_output_dir` and `_save_checkpoint`. A subclass adds its own state in `save_extra_state`.
    """

    _staging: Path | None = None
    _limit: int | None = None

    def train(self, *args: object, **kwargs: object) -> TrainOutput:
        """Train with transformers' own rotation of checkpoints disabled; `prune` does it."""
        self._limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super().train(*args, **kwargs)
        finally:
            self.args.save_total_limit = self._limit

    def save_extra_state(self, folder: Path) -> None:
        """Write additional state into a checkpoint folder. Called on every rank."""

    def _get_output_dir(self, trial: object) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        run_folder = Path(self._get_output_dir(trial))
        name = _checkpoint_name(self.state.global_step)
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
        if self.state.best_global_step:
            best = run_folder / _checkpoint_name(self.state.best_global_step)
            if best.is_dir():
                self.state.best_model_checkpoint = str(best)
        if self.accelerator.is_main_process:
            prune(run_folder, self._limit, run_folder / name, self.state.best_model_checkpoint)

    def _finish(self, folder: Path, run_folder: Path) -> None:
        # transformers recorded the staging folder as best_model_checkpoint
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(run_folder / folder.name)
            self.state.save_to_json(str(folder / STATE_FILE))
        if (run_folder / RESOLVED_FILE).is_file():
            shutil.copy2(run_folder / RESOLVED_FILE, folder)
        mark_complete(folder, self.args.world_size)
        remove(run_folder / folder.name)  # a damaged checkpoint of the same step
        os.replace(folder, run_folder / folder.name)
        _flush_to_disk(run_folder)


class SaveBetweenRollouts(TrainerCallback):
    """Postpone evaluating, saving and stopping until all updates of a rollout are done.

    Checkpoints do not contain the responses that are still to be trained on; a run resumed in the middle of a rollout
    would sample others. Evaluation is postponed too, so that the evaluated weights are the saved ones.

    Args:
        updates: optimiser steps per rollout.
    """

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.evaluate = self.save = self.stop = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Save a new best policy even if no save is due, since `prune` can only keep saved ones."""
        value = (metrics or {}).get(str(args.metric_for_best_model))
        if value is None or args.save_strategy == "no":
            return
        better = operator.gt if args.greater_is_better else operator.lt
        control.should_save |= state.best_metric is None or better(value, state.best_metric)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
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
    """Write the mark of a complete checkpoint: its files with sizes and hashes, package versions, number of ranks."""
    from rlfr_vlm import __version__

    files = {}
    for path in sorted(_files(folder)):
        _flush_to_disk(path)  # before the mark is written
        files[str(path.relative_to(folder))] = _fingerprint(path)
    mark = {
        "rlfr_vlm": __version__,
        "torch": torch.__version__,
        "grader": grader_version(),
        "processes": processes,
        "files": files,
    }
    write_json(folder / MARK_FILE, mark)


def damage(folder: Path) -> str | None:
    """Describe what is wrong with a checkpoint, or return None if it is complete."""
    try:
        files = dict(read_mark(folder)["files"])
    except FileNotFoundError:
        return f"{MARK_FILE} is missing: it was cut off while being written, or written by another program"
    except (OSError, ValueError, TypeError, KeyError) as error:
        return f"{MARK_FILE} cannot be read ({type(error).__name__})"
    for name, recorded in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != recorded["bytes"]:
            return f"{name} has {path.stat().st_size} bytes instead of {recorded['bytes']}"
        if _fingerprint(path) != recorded:
            return f"{name} has been changed"
    return None


def newest_complete(run_folder: Path) -> Path | None:
    """Find the newest complete checkpoint of a run; damaged ones are skipped with a message."""
    for folder in reversed(checkpoints(run_folder)):
        problem = damage(folder)
        if problem is None:
            return folder
        if is_first_process():
            print(f"skipping {folder}: {problem}")
    return None


def is_first_process() -> bool:
    """Whether this is rank 0. Works before a process group is initialised."""
    return int(os.environ.get("RANK", "0")) == 0


def check_complete(folder: Path) -> None:
    """Check that a checkpoint is complete.

    Raises:
        UserError: the folder is missing or the checkpoint is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"No checkpoint at {folder}. Name a checkpoint-N folder, or use --resume auto.")
    if problem := damage(folder):
        raise UserError(f"The checkpoint {folder} is not complete: {problem}. Name another, or use --resume auto.")


def read_mark(folder: Path) -> JsonObject:
    """Read a checkpoint's mark: package versions, number of ranks, fingerprint of every file."""
    mark: JsonObject = json.loads((folder / MARK_FILE).read_text(encoding="utf-8"))
    return mark


def checkpoints(run_folder: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first."""
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    numbered = [(path.name.removeprefix(prefix), path) for path in run_folder.glob(f"{prefix}*") if path.is_dir()]
    return [path for _, path in sorted((int(number), path) for number, path in numbered if number.isdigit())]


def _flush_to_disk(path: Path) -> None:
    """Flush a file or folder from the page cache to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(run_folder: Path, limit: int | None, *keep: Path | str | None) -> None:
    """Remove the oldest checkpoints beyond `limit`, but never the newest one or those in `keep` (just saved, best)."""
    folders = checkpoints(run_folder)
    if not limit or limit < 0:
        return
    protected = set(folders[-1:]) | {Path(path) for path in keep if path}
    for folder in folders:
        if len(folders) <= max(limit, len(protected)):
            return
        if folder not in protected:
            remove(folder)
            folders = [path for path in folders if path != folder]


def remove(folder: Path) -> None:
    """Remove a checkpoint: rename it first, which is atomic, then delete it."""
    if not folder.exists():
        return
    removal = folder.with_name(REMOVAL_FOLDER)
    shutil.rmtree(removal, ignore_errors=True)
    os.replace(folder, removal)
    shutil.rmtree(removal, ignore_errors=True)


def _checkpoint_name(step: int) -> str:
    return f"{PREFIX_CHECKPOINT_DIR}-{step}"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and path.name != MARK_FILE)


def _fingerprint(path: Path) -> dict[str, int | str]:
    """Size and hash of the first and last bytes of a file."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        digest.update(stream.read(SAMPLED_BYTES))
        stream.seek(max(size - SAMPLED_BYTES, 0))
        digest.update(stream.read())
    return {"bytes": size, "ends": digest.hexdigest()[:16]}
