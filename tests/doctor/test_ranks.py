"""`rlfr doctor` on several processes: who differs, hangs or never arrives is named."""

import json
import os
import socket
import subprocess
import sys

import pytest

from rlfr_vlm.doctor.ranks import read_rank_info
from rlfr_vlm.errors import UserError
from tests.doctor.helpers import SECRET, SECRETS
from tests.ports import free_port, held_port
from tests.trainer.launching import environment, torchrun

DOCTOR = ["-m", "rlfr_vlm.cli", "doctor"]

# What rank 1 does differently, then the command itself, without the import of torchvision, which takes seconds.
DRIVER = """\
import importlib.metadata, os, sys, time
from rlfr_vlm.cli import main
from rlfr_vlm.doctor import checks, machine, ranks
arguments = sys.argv[2:]
ranks.ANSWER_SECONDS = 2.0
machine.check_torchvision = lambda: checks.ok("torchvision", "not looked at")
if os.environ["RANK"] == "1" and sys.argv[1] == "differs":
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: "5.16.0" if name == "transformers" else version(name)
    arguments[arguments.index("--shared") + 1] += "/elsewhere"
if os.environ["RANK"] == "1" and sys.argv[1] == "hangs":
    ranks.run_all_reduce = lambda *_: time.sleep(60)
sys.exit(main(["doctor", *arguments]))
"""


@pytest.fixture
def driver(tmp_path):
    path = tmp_path / "driver.py"
    path.write_text(DRIVER)
    return str(path)


@pytest.fixture
def listener():
    with held_port() as port:
        yield port


def start(command, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        command, env=environment() | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rank(number: int, port: int) -> dict[str, str]:
    return {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def lines(text: str, topic: str) -> list[str]:
    return [line for line in text.splitlines() if line[6:].startswith(topic)]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"RANK": "1"}, "RANK is 1 and WORLD_SIZE is 1"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT is 70000"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "these are not set: MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_impossible_variables_are_refused(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        read_rank_info()


def test_two_ranks_agree(tmp_path):
    shared, file = tmp_path / "shared", tmp_path / "found.json"
    shared.mkdir()
    done = start([*torchrun(), *DOCTOR, "--shared", str(shared), "--json", str(file)], **SECRETS)
    shown, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    host = socket.gethostname()
    assert f"ok    ranks: all 2 arrived: ranks 0, 1 on {host}\n" in shown
    assert f"ok    shared folder: all 2 ranks see each other's files in {shared}\n" in shown
    assert "ok    gloo all-reduce: sum of 1 MB over 2 ranks is right (3); 64 MB takes" in shown
    assert len(lines(shown, "same versions")) == len(lines(shown, "Python")) == 1  # rank 0 alone prints
    assert json.loads(file.read_text())["ranks"] == 2 and list(shared.iterdir()) == []
    assert SECRET not in shown + errors + file.read_text()


def test_a_failure_is_printed_before_the_launcher_ends_all_ranks(driver):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = start([*torchrun(), driver, "agrees", "--port", str(port)])
        shown, _ = done.communicate(timeout=300)
    assert done.returncode != 0
    [line] = lines(shown, f"port {port}")  # once, though two ranks run here
    assert line.startswith(f"FAIL  port {port}: in use by ") and f"(process {os.getpid()})" in line
    assert shown.endswith(", 1 FAIL\n") and len(lines(shown, "gloo all-reduce: sum of 1 MB")) == 1


def test_differences_between_two_ranks_are_named(tmp_path, driver):
    (tmp_path / "elsewhere").mkdir()
    port = free_port()
    command = [sys.executable, driver, "differs", "--shared", str(tmp_path), "--timeout", "15"]
    processes = [start(command, **rank(number, port)) for number in (0, 1)]
    (shown, errors), (silence, _) = (process.communicate(timeout=180) for process in processes)
    assert [process.returncode for process in processes] == [2, 2], errors
    assert silence == ""
    host = socket.gethostname()
    [version] = lines(shown, "same transformers")
    assert version.startswith(f"FAIL  same transformers: rank 1 on {host} has 5.16.0, rank 0 on {host} has ")
    assert [line.split(" wrote")[0] for line in lines(shown, "shared folder")] == [
        f"FAIL  shared folder: rank {own} on {host} does not see what rank {other} on {host}"
        for own, other in ((0, 1), (1, 0))
    ]
    assert [line[:4] for line in lines(shown, "gloo all-reduce")] == ["ok  "]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["driver.py", "elsewhere"]


def test_a_rank_that_never_arrives_is_named(tmp_path, driver):
    file = tmp_path / "found.json"
    done = start([sys.executable, driver, "waits", "--timeout", "2", "--json", str(file)], **rank(0, free_port()))
    shown, errors = done.communicate(timeout=120)
    assert done.returncode == 2, errors
    [line] = lines(shown, "ranks")
    assert line.startswith(
        "FAIL  ranks: rank 1 of 2 (machine 1, from which none arrived) never arrived within 2 s; "
        f"arrived: rank 0 on {socket.gethostname()} -> "
    )
    assert json.loads(file.read_text())["exit_code"] == 2


@pytest.mark.slow
def test_a_rank_that_hangs_in_the_sum_is_named_and_both_end(driver):
    port = free_port()
    processes = [start([sys.executable, driver, "hangs", "--timeout", "8"], **rank(number, port)) for number in (1, 0)]
    shown, errors = processes[1].communicate(timeout=180)
    processes[0].kill()  # it sleeps
    processes[0].communicate()
    assert processes[1].returncode == 2, errors
    [line] = lines(shown, "gloo all-reduce")
    assert line.startswith(f"FAIL  gloo all-reduce: rank 1 on {socket.gethostname()} died or hangs in it -> ")


def test_a_rank_without_rank_0_says_where_it_looked():
    port = free_port()
    done = start([sys.executable, *DOCTOR, "--timeout", "1"], **rank(1, port))
    shown, errors = done.communicate(timeout=120)
    assert (done.returncode, shown) == (2, "")
    expected = f"rlfr: rank 1 on {socket.gethostname()} cannot reach rank 0 at 127.0.0.1:{port} within 1 s: "
    assert expected + "Connection refused. " in errors


def test_a_server_of_another_kind_is_not_taken_for_rank_0(listener):
    done = start([sys.executable, *DOCTOR, "--timeout", "1"], **rank(1, listener))
    shown, errors = done.communicate(timeout=60)
    assert (done.returncode, shown) == (2, "")
    assert f"what answers at 127.0.0.1:{listener} is not rank 0's store: no greeting within 1 s" in errors
