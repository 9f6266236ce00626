"""Checks of one machine: GPUs, torchvision, disks, memory, keys; `check_machine` runs them all."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.compat import torchvision_hook
from rlfr_vlm.doctor.checks import Check, fail, ok, warn
from rlfr_vlm.doctor.network import check_host_name, check_port
from rlfr_vlm.doctor.versions import check_packages, check_python
from rlfr_vlm.files import cache_root

if TYPE_CHECKING:
    from rlfr_vlm.doctor.ranks import RankInfo

GB = 1e9
DISK_LITTLE, DISK_TOO_LITTLE = 50.0, 2.0  # GB free: below the first warn, below the second fail
SHM = Path("/dev/shm")
SHM_LITTLE = 1.0  # GB
MEMORY_LITTLE = 4.0  # GB
GPU_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used,driver_version", "--format=csv,noheader,nounits"]
GPU_QUERY_SECONDS = 20  # the driver takes several seconds to load when its persistence daemon is off
GPU_BUSY_GB = 2.0
REINSTALL = "remove .venv and run `bash scripts/setup.sh` again on this machine (with the --extras you use)"
INSTALL_HOOK = "python -m rlfr_vlm.compat.torchvision_hook"
KEYS = {
    "HF_TOKEN": "private or gated models and data",
    "WANDB_API_KEY": "--report_to wandb",
    "OPENAI_API_KEY": "a judge at OpenAI",
    "JUDGE_API_KEY": "a judge behind JUDGE_BASE_URL",
    "RLFR_EVAL_API_KEY": "rlfr-eval --base-url",
    "RLFR_API_KEY": "rlfr sample --engine URL",
}


def check_machine(info: "RankInfo", output_dir: Path, ports: Sequence[int]) -> list[Check]:
    """Run all checks of this machine. Only local rank 0 runs them; other ranks return an empty list."""
    if info.local_rank != 0:
        return []
    return [
        check_python(),
        *check_packages(),
        *check_gpus(),
        check_torchvision(),
        *check_disks(output_dir),
        *check_shared_memory(),
        check_memory(),
        *check_keys(),
        check_host_name(info),
        *(check_port(port) for port in ports),
    ]


# GPUs


@dataclass(frozen=True)
class Gpu:
    """A GPU according to nvidia-smi; memory in GB."""

    name: str
    memory: float
    used: float
    driver: str


@dataclass(frozen=True)
class TorchBuild:
    """Version of torch, the platform it was built for, the devices it can use, and why it cannot use any."""

    version: str = ""
    built_for: str = ""
    devices: list[str] = field(default_factory=list)
    problem: str = ""


def check_gpus() -> list[Check]:
    """Check the GPUs and their driver, and whether torch can use them."""
    gpus, driver_problem = query_gpus()
    checks = [_check_torch(gpus, query_torch())]
    if gpus:
        drivers = ", ".join(sorted({gpu.driver for gpu in gpus}))
        checks.insert(0, ok("GPUs", f"{len(gpus)}: {_describe_gpus(gpus)}; driver {drivers}"))
    if driver_problem:
        remedy = (
            "run `nvidia-smi` by hand; a driver that was updated while loaded needs a restart of the machine, a "
            "container the NVIDIA container toolkit"
        )
        checks.append(warn("driver", driver_problem, remedy))
    busy = [f"GPU {i} {gpu.used:.1f} of {gpu.memory:.1f} GB" for i, gpu in enumerate(gpus) if gpu.used > GPU_BUSY_GB]
    if busy:
        remedy = (
            "`nvidia-smi` names the processes that hold it; end them, or choose other GPUs with CUDA_VISIBLE_DEVICES"
        )
        checks.append(warn("GPU memory", f"in use already: {', '.join(busy)}", remedy))
    return checks


def query_gpus() -> tuple[list[Gpu], str]:
    """Return the GPUs according to nvidia-smi and its error message. No nvidia-smi means no GPU and no error."""
    try:
        done = subprocess.run(GPU_QUERY, capture_output=True, text=True, timeout=GPU_QUERY_SECONDS, check=False)
    except FileNotFoundError:
        return [], ""
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi does not answer within {GPU_QUERY_SECONDS} s"
    except OSError as error:
        return [], f"nvidia-smi does not start: {error.strerror}"
    if done.returncode != 0:
        return [], f"nvidia-smi fails: {(done.stdout + done.stderr).strip()[:200] or f'code {done.returncode}'}"
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 3]
    return [Gpu(name, _gigabytes(memory), _gigabytes(used), driver) for name, memory, used, driver in rows], ""


def query_torch() -> TorchBuild:
    """Return torch's build and devices. Never raises: a torch that does not import is a result of the check."""
    try:
        import torch
    except (ImportError, OSError, RuntimeError) as error:
        return TorchBuild(problem=f"torch does not import: {error}")
    hip = getattr(torch.version, "hip", None)
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {hip}" if hip else ""
    try:
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count() if built_for else 0)]
        problem = "" if not built_for or torch.cuda.is_available() else "torch.cuda.is_available() is False"
    except (RuntimeError, AssertionError) as error:
        return TorchBuild(torch.__version__, built_for, problem=str(error).splitlines()[0])
    return TorchBuild(torch.__version__, built_for, devices, problem)


def _check_torch(gpus: list[Gpu], torch_build: TorchBuild) -> Check:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible_note = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
    build = f"torch {torch_build.version} built for {torch_build.built_for or 'the CPU'}"
    if torch_build.problem.startswith("torch does not import"):
        return fail("torch", torch_build.problem, REINSTALL)
    if torch_build.devices:
        devices = ", ".join(torch_build.devices)
        return ok("torch", f"{build} sees {len(torch_build.devices)}{visible_note}: {devices}")
    if gpus and not torch_build.built_for:
        return fail(
            "torch",
            f"{build}, so it cannot use the {len(gpus)} GPUs that nvidia-smi sees",
            f"a CPU build of torch is installed; {REINSTALL}, which installs the CUDA build",
        )
    if gpus and visible is not None and visible.strip() in ("", "-1"):
        return warn(
            "torch",
            f"{build}; CUDA_VISIBLE_DEVICES is {visible!r} and hides all GPUs, so training runs on the CPU",
            "unset CUDA_VISIBLE_DEVICES",
        )
    if gpus:
        reason = f"{torch_build.problem}{visible_note}".strip() or "it finds no device"
        return fail(
            "torch",
            f"{build} cannot use the {len(gpus)} GPUs that nvidia-smi sees: {reason}",
            f"driver {gpus[0].driver} must be new enough for {torch_build.built_for}: update the driver, or install "
            "a torch built for an older CUDA",
        )
    return warn(
        "torch",
        f"no GPU; {build}; training runs on the CPU",
        "that is enough for scripts/quickstart.sh and the tests; larger policies need a GPU",
    )


def _describe_gpus(gpus: list[Gpu]) -> str:
    counts: dict[tuple[str, float], int] = {}
    for gpu in gpus:
        counts[gpu.name, gpu.memory] = counts.get((gpu.name, gpu.memory), 0) + 1
    return ", ".join(f"{count} x {name} with {memory:.1f} GB" for (name, memory), count in counts.items())


def _gigabytes(mebibytes: str) -> float:
    """Convert to GB. Returns 0 for a GPU in MIG mode, whose memory nvidia-smi prints as [N/A]."""
    return int(mebibytes) * 2**20 / GB if mebibytes.isdecimal() else 0.0


# torchvision


def check_torchvision() -> Check:
    """Import torchvision with the import hook of this process, if any."""
    topic = "torchvision"
    hooked = torchvision_hook.is_installed()
    source = f"{torchvision_hook.PTH_FILE} in this environment" if torchvision_hook.pth_path().exists() else "a caller"
    try:
        version = importlib.import_module("torchvision").__version__
    except (ImportError, OSError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "torchvision::nms" in text and not hooked:
            return fail(
                topic,
                f"does not import ({text}): it was built for another torch than the one installed",
                f"run `{INSTALL_HOOK}` or `bash scripts/setup.sh`",
            )
        return fail(
            topic,
            f"does not import: {text}",
            "install the torchvision that fits this torch: `python -m pip install --force-reinstall --constraint "
            "constraints.txt torchvision`",
        )
    if not hooked:
        return ok(topic, f"{version} imports; no import hook, and none is needed")
    if not torchvision_hook._libraries:
        return ok(topic, f"{version} imports; the import hook is in place (by {source}) and has nothing to do")
    result = (
        f"{version} imports thanks to the import hook (by {source}): its extension was built for another torch and "
        "does not load; image transforms work, operators such as nms do not"
    )
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        remedy = (
            "beside a CUDA torch the fitting torchvision can be installed: `python -m pip install --force-reinstall "
            "--constraint constraints.txt torchvision`"
        )
        return warn(topic, result, remedy)
    return ok(topic, result)


# Disks and memory


def check_disks(output_dir: Path) -> list[Check]:
    """Check the free space for results, models and caches."""
    folders = [
        ("disk for results", output_dir, "--output_dir"),
        ("disk for models", hub_cache(), "HF_HOME"),
        ("disk for caches", cache_root(), "RLFR_CACHE"),
    ]
    return [_check_disk(topic, folder, setting) for topic, folder, setting in folders]


def hub_cache() -> Path:
    """Return the model cache of huggingface_hub by its rules, without importing it."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home).expanduser() if home else cache / "huggingface") / "hub"


def _check_disk(topic: str, folder: Path, setting: str) -> Check:
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free / GB
    except OSError as error:
        return fail(topic, f"{folder} cannot be looked at: {error.strerror}", f"name another folder with {setting}")
    result = f"{free:.1f} GB free in {folder}"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "cannot be written to" if existing.is_dir() else "is a file"
        return fail(topic, f"{existing} {reason}", f"name another folder with {setting}")
    remedy = f"free some space or name a larger disk with {setting}"
    if free < DISK_TOO_LITTLE:
        return fail(topic, result, remedy)
    if free < DISK_LITTLE:
        return warn(topic, f"{result}; checkpoints of a 7B policy with its optimiser take 90 GB each", remedy)
    return ok(topic, result)


def check_shared_memory() -> list[Check]:
    """Check /dev/shm, through which data workers and vLLM pass images. Only Linux has it."""
    if not SHM.is_dir():
        return []
    size = shutil.disk_usage(SHM).total / GB
    result = f"{SHM} has {size:.2f} GB"
    if size < SHM_LITTLE:
        remedy = "data workers and vLLM need 1 GB or more: start the container with --shm-size=16g or --ipc=host"
        return [warn("shared memory", result, remedy)]
    return [ok("shared memory", result)]


def check_memory() -> Check:
    """Check the available main memory."""
    import psutil

    memory = psutil.virtual_memory()
    result = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB available"
    if memory.available / GB < MEMORY_LITTLE:
        return warn("memory", result, "end other programs; loading a policy takes at least the size of its weights")
    return ok("memory", result)


# Keys


def check_keys() -> list[Check]:
    """Check whether each key is set. An unset key is ok until a command needs it. Values are never part of a check."""
    return [_check_key(name, use) for name, use in KEYS.items()]


def _check_key(name: str, use: str) -> Check:
    value = os.environ.get(name)
    if value is None:
        return ok(name, f"not set; needed for {use}")
    if not value.strip():
        return warn(name, "set, but empty", f"unset it, or give it the key for {use}")
    if value != value.strip():
        return warn(name, "set, with blanks or line ends around it", "set it again without them; servers refuse it so")
    return ok(name, "set")
