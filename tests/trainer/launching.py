"""Starts training scripts in one process or several."""

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "scripts" / "configs" / "accelerate"


def torchrun(processes: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]


def zero(stage: int) -> list[str]:
    """The shipped configuration of DeepSpeed, on two processes."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    config, port = str(CONFIGS / f"zero{stage}.yaml"), str(free_port())  # accelerate's port may be in use
    return [*launcher, "--config_file", config, "--main_process_port", port, "--num_processes", "2"]


def fsdp() -> dict[str, str]:
    """What accelerate's launcher makes of the shipped configuration of FSDP2, as its processes are told."""
    settings = yaml.safe_load((CONFIGS / "fsdp2.yaml").read_text())["fsdp_config"]
    named = {
        name.upper(): str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()
    }
    return named | {"ACCELERATE_USE_FSDP": "true"}


def options(settings: Mapping[str, object]) -> list[str]:
    return [part for key, value in settings.items() for part in (f"--{key}", str(value))]


def environment() -> dict[str, str]:
    """Ours, without what a launcher set for some other run."""
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {key: value for key, value in os.environ.items() if key not in launched}
    kept["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}


# `rlfr` without the parts that `skip_unused_parts` names
CLI = (
    "import sys; from rlfr_vlm import cli; from tests.trainer import launching; launching.skip_unused_parts(); "
    "sys.exit(cli.main())"
)


def skip_unused_parts() -> None:
    """Make TRL skip importing vLLM, which takes 8 s of CPU in each process. Call before TRL's trainer is imported.

    Under DeepSpeed also skip its all-reduce in shared memory for CPUs, which takes a minute to compile on a machine
    that has not compiled it before; gloo computes the same sums.
    """
    importlib.import_module("trl.import_utils").is_vllm_available = lambda *_, **__: False
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def launch(
    launcher: Sequence[str], command: Sequence[str], settings: Mapping[str, object] | None = None, **more: str
) -> str:
    """Run to the end and return its output; the test fails with the error output if the run fails."""
    whole_command = [*launcher, *command, *options(settings or {})]
    done = subprocess.run(
        whole_command, env=environment() | more, timeout=500, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
