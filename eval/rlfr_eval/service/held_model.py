"""Hold the files of a model while its job waits and runs, so that a trainer may delete the checkpoint meanwhile."""

import os
import shutil
from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import replace_directory

HELD = "held_model"  # in the job's folder
NOT_HELD = "optimizer.pt"  # large, and no part of the model


def held_folder(model: Path, job: Path) -> Path:
    """Return the folder that holds a model for a job; its name is the model's, which results show."""
    return job / HELD / model.name


def hold(model: Path, job: Path) -> None:
    """Make hard links to a model's files, which take no room until the trainer deletes its own.

    Args:
        model: the model's folder.
        job: the job's folder.

    Raises:
        UserError: the file system has no hard links, or the folders lie on two.
    """
    try:
        with replace_directory(job / HELD) as folder:
            (folder / model.name).mkdir()
            for file in model.iterdir():
                if file.is_file() and file.name != NOT_HELD:
                    os.link(file.resolve(), folder / model.name / file.name)
            beside = model.parent / "config.yaml"  # of the training, which the preset `training` reads
            if beside.is_file():
                os.link(beside.resolve(), folder / beside.name)
    except OSError as error:
        raise UserError(
            f"hold_model cannot make hard links to {model} in {job} ({error.strerror}). Start the service with --out "
            "on the model's file system, or leave the checkpoint where it is until the job has ended."
        ) from None


def release(job: Path) -> None:
    """Remove what `hold` made."""
    shutil.rmtree(job / HELD, ignore_errors=True)
