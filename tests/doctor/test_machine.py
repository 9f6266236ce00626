"""Checks of one machine: GPUs, torchvision, disks, memory, keys."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlfr_vlm.compat import torchvision_hook
from rlfr_vlm.doctor import machine
from rlfr_vlm.doctor.checks import FAIL, OK, WARN, Check
from rlfr_vlm.doctor.machine import check_torchvision
from tests.doctor.helpers import SECRET, SECRETS, rank_info, set_disk_usage


def test_only_local_rank_0_runs_the_checks_of_a_machine(tmp_path):
    assert machine.check_machine(rank_info(world_size=2, rank=1, local_rank=1, local_world_size=2), tmp_path, []) == []


def test_gpus_that_torch_cannot_use_fail(monkeypatch):
    answer = "NVIDIA H100, 81559, 500, 570.1\nNVIDIA H100, 81559, 4000, 570.1\n"
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def found(**view) -> list[Check]:
        monkeypatch.setattr(machine, "query_torch", lambda: machine.TorchBuild("2.13.0", **view))
        return machine.check_gpus()

    listed, torch, busy = found(built_for="")
    assert listed.found == "2: 2 x NVIDIA H100 with 85.5 GB; driver 570.1"  # 81559 * 2**20 / 1e9
    assert torch.status == FAIL and "a CPU build of torch is installed" in torch.remedy
    assert busy.status == WARN and busy.found == "in use already: GPU 1 4.2 of 85.5 GB"
    old_driver = found(built_for="CUDA 13.0", problem="torch.cuda.is_available() is False")[1]
    assert old_driver.status == FAIL and "driver 570.1 must be new enough for CUDA 13.0" in old_driver.remedy
    assert found(built_for="CUDA 13.0", devices=["NVIDIA H100"] * 2)[1].status == OK
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = found(built_for="CUDA 13.0", problem="torch.cuda.is_available() is False")[1]
    assert hidden.status == WARN and hidden.remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(), None),
        (subprocess.TimeoutExpired("nvidia-smi", 20), "does not answer within 20 s"),
        (PermissionError(13, "Permission denied"), "does not start: Permission denied"),
    ],
)
def test_a_missing_or_broken_driver_does_not_stop_the_others(monkeypatch, error, message):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setattr(machine, "query_torch", lambda: machine.TorchBuild("2.13.0+cpu"))
    torch, *rest = machine.check_gpus()
    assert torch.status == WARN and "training runs on the CPU" in torch.found
    assert [message in check.found for check in rest] == ([True] if message else [])


def test_torchvision_that_does_not_import_fails(monkeypatch):
    assert check_torchvision().status == OK
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert check_torchvision().status == FAIL

    def refuse(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", refuse)
    monkeypatch.setattr(torchvision_hook, "is_installed", lambda: False)
    assert "python -m rlfr_vlm.compat.torchvision_hook" in check_torchvision().remedy


@pytest.mark.parametrize(("free", "status"), [(1.9e9, FAIL), (49e9, WARN), (51e9, OK)])
def test_disks_need_room(monkeypatch, tmp_path, free, status):
    set_disk_usage(monkeypatch, free)
    found = machine.check_disks(tmp_path / "not" / "yet")
    assert [check.status for check in found] == [status] * 3
    assert found[0].found.startswith(f"{free / 1e9:.1f} GB free in {tmp_path}/not/yet")
    if status == FAIL:
        assert found[0].remedy.endswith("--output_dir") and found[1].remedy.endswith("HF_HOME")


def test_results_cannot_go_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    check = machine.check_disks(tmp_path / "file" / "run")[0]
    assert check.status == FAIL and check.found == f"{tmp_path}/file is a file"


def test_caches_are_looked_for_where_their_settings_say(monkeypatch, tmp_path):
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert machine.hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "rlfr"))
    assert machine.hub_cache() == tmp_path / "hub"
    assert f"free in {tmp_path}/rlfr" in machine.check_disks(tmp_path)[2].found


def test_little_shared_memory_warns(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "SHM", tmp_path)
    set_disk_usage(monkeypatch, free=1e7, total=64e6)  # what a container gets unless told otherwise
    [check] = machine.check_shared_memory()
    assert check.status == WARN and "0.06 GB" in check.found and "--shm-size" in check.remedy
    set_disk_usage(monkeypatch, free=1e7, total=2e9)
    assert machine.check_shared_memory()[0].status == OK


def test_keys_are_set_or_not_and_never_shown(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n")
    monkeypatch.setenv("WANDB_API_KEY", " ")
    monkeypatch.delenv("OPENAI_API_KEY")
    found = {check.topic: check for check in machine.check_keys()}
    statuses = {
        "HF_TOKEN": WARN,
        "WANDB_API_KEY": WARN,
        "OPENAI_API_KEY": OK,
        "JUDGE_API_KEY": OK,
        "RLFR_EVAL_API_KEY": OK,
        "RLFR_API_KEY": OK,
    }
    assert {name: check.status for name, check in found.items()} == statuses
    assert found["OPENAI_API_KEY"].found.startswith("not set") and found["JUDGE_API_KEY"].found == "set"
    assert "line ends" in found["HF_TOKEN"].found and "empty" in found["WANDB_API_KEY"].found
    assert "sk-" not in str(found)
