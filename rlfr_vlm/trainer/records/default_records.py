"""Records of a trainer that is used from Python: those that the commands write, their progress line, and Ctrl-C."""

from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import Trainer

from rlfr_vlm.checkpoint import checkpoints
from rlfr_vlm.config_file import Settings, write_settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.records.callbacks import (
    METRICS_FILE,
    AlertsFile,
    MetricsFile,
    OnTrainBegin,
    ProgressLine,
    StopOnInterrupt,
    use_own_progress,
)
from rlfr_vlm.trainer.records.run_record import program_arguments, write_run_record

if TYPE_CHECKING:
    from datasets import Dataset

CALLBACKS = (MetricsFile, AlertsFile, ProgressLine, StopOnInterrupt, OnTrainBegin)


def keep_records(trainer: Trainer, description: str, settings: Settings) -> None:
    """Give a trainer the callbacks of the commands, unless its `callbacks` have a `MetricsFile` already.

    Args:
        description: text before the progress bar.
        settings: written to `config.yaml` when training begins, as `resolved` returned them.
    """
    if any(isinstance(callback, MetricsFile) for callback in trainer.callback_handler.callbacks):
        return
    use_own_progress(trainer)
    folder = str(trainer.args.output_dir)
    trainer.add_callback(OnTrainBegin(lambda: _begin(trainer, settings)))  # before the metrics of a run are replaced
    for callback in (MetricsFile(folder), AlertsFile(folder), StopOnInterrupt()):
        trainer.add_callback(callback)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(ProgressLine(description))


def drop_records(trainer: Trainer) -> None:
    """Remove the callbacks of `keep_records`: the trainer writes only what transformers' `Trainer` writes."""
    for callback in CALLBACKS:
        trainer.remove_callback(callback)


def holds_run(folder: Path) -> bool:
    """Return whether a folder has checkpoints or metrics of a run, which another run would mix with or replace."""
    return bool(checkpoints(folder)) or (folder / METRICS_FILE).exists()


def _begin(trainer: Trainer, settings: Settings) -> None:
    """Write `config.yaml` and `run.json`; called when training begins, after a checkpoint was loaded.

    Raises:
        UserError: the folder holds another run, which would be mixed with this one.
    """
    folder, resumed = Path(trainer.args.output_dir), trainer.state.global_step > 0
    if not resumed and holds_run(folder):
        raise UserError(
            f"{folder} holds a run already. Go on with it by trainer.train(resume_from_checkpoint=True), name another "
            "output_dir, or remove it."
        )
    if not trainer.is_world_process_zero():
        return
    write_settings(str(folder), settings)
    dataset: Dataset | None = trainer.train_dataset
    data = {
        "rows": len(dataset) if isinstance(dataset, Sized) else None,
        "fingerprint": getattr(dataset, "_fingerprint", None),
    }
    policy = getattr(getattr(trainer, "policy", trainer.model), "name_or_path", None)
    write_run_record(folder, program_arguments(), trainer.args, data, resumed=resumed, policy=policy)
