"""What a check ran on: card, driver, CUDA, package versions, commit. Prints JSON.

python -m benchmarks.gpu.machine
"""

import json
import platform
import re
import shutil
import subprocess
from pathlib import Path

from rlfr_vlm.files import JsonObject
from rlfr_vlm.provenance import git_commit, package_versions

PACKAGES = ("torch", "torchvision", "triton", "transformers", "trl", "accelerate", "peft", "datasets", "flash-attn",
            "math-verify", "numpy")  # fmt: skip
DRIVER_FILE = Path("/proc/driver/nvidia/version")


def describe() -> JsonObject:
    """Describe this machine. `card` is None without a CUDA device."""
    import torch

    available = torch.cuda.is_available()
    commit = git_commit(Path(__file__).resolve())
    return {
        "card": torch.cuda.get_device_name(0) if available else None,
        "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / 1e9, 1) if available else None,
        "driver": driver(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "versions": package_versions(PACKAGES),
        "commit": None if commit is None else commit.commit,
        "changed_files": None if commit is None else commit.changed,
    }


def driver() -> str | None:
    """Version of NVIDIA's driver; None without one."""
    if program := shutil.which("nvidia-smi"):
        query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.split("\n")[0].strip()
    if DRIVER_FILE.is_file() and (found := re.search(r"\d+\.\d+(\.\d+)?", DRIVER_FILE.read_text(encoding="utf-8"))):
        return found[0]
    return None


if __name__ == "__main__":
    print(json.dumps(describe()))
