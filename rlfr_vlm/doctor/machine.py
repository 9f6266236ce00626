"""Room on disks, in shared memory and in memory."""

import os
import shutil
from pathlib import Path

from rlfr_vlm.doctor.checks import Check, fail, ok, warn
from rlfr_vlm.files import cache_root

GB = 1e9
DISK_LITTLE, DISK_TOO_LITTLE = 50.0, 2.0
SHM = Path("/dev/shm")
SHM_LITTLE = 1.0
MEMORY_LITTLE = 4.0


def check_disks(output_dir: Path) -> list[Check]:
    """Where results, models and caches go."""
    places = [
        ("disk for results", output_dir, "--output_dir"),
        ("disk for models", hub_cache(), "HF_HOME"),
        ("disk for caches", cache_root(), "RLFR_CACHE"),
    ]
    return [_check_disk(topic, folder, setting) for topic, folder, setting in places]


def hub_cache() -> Path:
    """Where huggingface_hub keeps models, by its rules, without importing it."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return Path(folder).expanduser()
    home = os.environ.get("HF_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home).expanduser() if home else cache / "huggingface") / "hub"


def check_shared_memory() -> list[Check]:
    """/dev/shm, through which workers and vLLM hand over images; other systems than Linux have none."""
    if not SHM.is_dir():
        return []
    size = shutil.disk_usage(SHM).total / GB
    found = f"{SHM} has {size:.2f} GB"
    if size < SHM_LITTLE:
        return [warn("shared memory", found, "data workers and vLLM need 1 GB or more: start the container with "
                     "--shm-size=16g or --ipc=host")]  # fmt: skip
    return [ok("shared memory", found)]


def check_memory() -> Check:
    """The machine's memory."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB available"
    if memory.available / GB < MEMORY_LITTLE:
        return warn("memory", found, "end other programs; loading a policy takes at least the size of its weights")
    return ok("memory", found)


def _check_disk(topic: str, folder: Path, setting: str) -> Check:
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        free = shutil.disk_usage(nearest).free / GB
    except OSError as error:
        return fail(topic, f"{folder} cannot be looked at: {error.strerror}", f"name another folder with {setting}")
    found = f"{free:.1f} GB free in {folder}"
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        why = "cannot be written to" if nearest.is_dir() else "is a file"
        return fail(topic, f"{nearest} {why}", f"name another folder with {setting}")
    remedy = f"free some space or name a larger disk with {setting}"
    if free < DISK_TOO_LITTLE:
        return fail(topic, found, remedy)
    if free < DISK_LITTLE:
        return warn(topic, f"{found}; checkpoints of a 7B policy with its optimiser take 90 GB each", remedy)
    return ok(topic, found)
