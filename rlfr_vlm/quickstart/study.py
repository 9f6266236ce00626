"""Prepare the larger study after a quick start: settings in `study.yaml`, and the command of `rlfr sweep` for it."""

import os
import shlex
import shutil
import sys

from rlfr_vlm.config_file import Settings, write_settings_file
from rlfr_vlm.quickstart.recipe import RLPR_MODE
from rlfr_vlm.quickstart.run import QuickstartResult

SETTINGS_FILE, RUNS_FOLDER = "study.yaml", "study"
LEAST_SEEDS = 5


def write_study(result: QuickstartResult) -> str:
    """Write `study.yaml`; returns the command line."""
    sweep = result.sweep
    write_settings_file(sweep.out / SETTINGS_FILE, study_settings(result))
    seeds = max(LEAST_SEEDS, 2 * len(sweep.seeds))
    arguments = [
        "--config",
        str(sweep.out / SETTINGS_FILE),
        "--methods",
        ",".join(sweep.methods),
        "--seeds",
        str(seeds),
    ]
    return shlex.join([*_program(), "sweep", *arguments, "--out", str(sweep.out / RUNS_FOLDER)])


def study_settings(result: QuickstartResult) -> Settings:
    """Settings of `rlfr train` with which the quick start trained, for any method, and the evaluation of each run."""
    recipe, start = result.recipe, result.start
    return {
        "model_name_or_path": start.name,
        "dataset_name": start.task,
        "dataset_limit": recipe.rl_rows,
        "flow_path": str(result.sweep.out / "flow"),
        "rlpr_mode": RLPR_MODE,
        **recipe.rl_settings(),
        "eval_strategy": "steps",
        "eval_steps": 0.5,  # of max_steps: halfway and at the end, also where max_steps is changed
        "eval_rows": recipe.eval_rows,
        "per_device_eval_batch_size": recipe.eval_batch,
    }


def _program() -> list[str]:
    """Return the beginning of a command line that starts this program from the current folder."""
    if shutil.which("rlfr"):
        return ["rlfr"]
    return [min(sys.executable, os.path.relpath(sys.executable), key=len), "-m", "rlfr_vlm.cli"]
