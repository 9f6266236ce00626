"""`rlfr doctor` on several processes: who differs, hangs or never arrives is named."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from rlfr_vlm.doctor import agreement, checks, collective
from rlfr_vlm.doctor.checks import FAIL, OK, WARN, Check
from rlfr_vlm.doctor.local import check_machine
from tests.doctor.test_doctor import SECRET, SECRETS, free_port, place
from tests.ports import held_port
from tests.trainer.launching import environment, torchrun

DOCTOR = ["-m", "rlfr_vlm.cli", "doctor"]

# What rank 1 does differently, then the command itself.
DRIVER = """\
import importlib.metadata, os, sys, time
from rlfr_vlm.cli import main
from rlfr_vlm.doctor import collective, ranks
arguments = sys.argv[2:]
ranks.ANSWER_SECONDS = 2.0
if os.environ["RANK"] == "1" and sys.argv[1] == "differs":
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: "5.16.0" if name == "transformers" else version(name)
    arguments[arguments.index("--shared") + 1] += "/elsewhere"
if os.environ["RANK"] == "1" and sys.argv[1] == "hangs":
    ranks.run_trial = lambda *_: time.sleep(60)
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
    return subprocess.Popen(command, env=environment() | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)  # fmt: skip


def rank(number: int, port: int) -> dict[str, str]:
    return {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def lines(text: str, topic: str) -> list[str]:
    return [line for line in text.splitlines() if line[6:].startswith(topic)]


def test_missing_ranks_are_named_with_the_machine_of_their_neighbours():
    here = place(world=6, local_world=2, address="a", port=29500)
    found = agreement.check_arrivals({0: "a", 1: "a", 3: "b"}, here, 60)
    assert [check.found.split(" never")[0] for check in found] == [
        "rank 2 of 6 (on b)", "rank 4 of 6 (machine 2, from which none arrived)",
        "rank 5 of 6 (machine 2, from which none arrived)",
    ]  # fmt: skip
    assert found[0].found.endswith("within 60 s; arrived: ranks 0, 1 on a; rank 3 on b")
    [silent] = agreement.check_silence({0: {}}, {0: "a", 3: "b"}, "its checks")
    assert "rank 3 on b arrived, then fell silent" in silent.found


def report(host: str, trl: str = "1", local_rank: int = 0, gpus: int = 0, found: tuple[Check, ...] = ()) -> dict:
    return {"host": host, "local_rank": local_rank, "gpus": gpus, "versions": {"trl": trl, "x": "1"},
            "checks": checks.as_rows(found)}  # fmt: skip


def test_the_rank_that_differs_from_most_is_named():
    [check] = agreement.check_versions_agree({0: report("a", "2"), 1: report("a"), 2: report("b")})
    assert check.topic == "same trl" and check.found == "rank 0 on a has 2, rank 1 on a; rank 2 on b has 1"
    [half] = agreement.check_versions_agree({0: report("a", "2"), 1: report("b", "1")})
    assert half.found == "rank 1 on b has 1, rank 0 on a has 2"
    [same] = agreement.check_versions_agree({0: report("a"), 1: report("b")})
    assert same.status == OK


def test_other_machines_findings_are_shown_once_with_their_place():
    full, none = checks.fail("disk", "1 GB", "free some"), checks.ok("memory", "9 GB")
    found = agreement.merge_checks(
        {0: report("a", found=(full,)), 1: report("a", found=(full,)), 2: report("b", found=(full, none)),
         3: report("c", found=(full,))}, "a",
    )  # fmt: skip
    assert found == [full.at("rank 2 on b, rank 3 on c")]


def test_one_process_looks_at_a_machine_for_all(tmp_path):
    assert check_machine(place(world=2, rank=1, local_rank=1, local_world=2), tmp_path, []) == []


def test_ranks_without_a_gpu_of_their_own_are_named():
    cards = {0: report("a", gpus=2), 1: report("a", local_rank=1, gpus=2)}
    assert agreement.choose_backend(cards) == ("nccl", [])
    assert agreement.choose_backend({0: report("a"), 1: report("b")}) == ("gloo", [])
    backend, [check] = agreement.choose_backend(cards | {2: report("b", local_rank=1, gpus=1)})
    assert backend == "gloo" and check.found == "rank 2 on b has none (rank 2: LOCAL_RANK 1 of 1 GPUs)"


def test_a_wrong_sum_and_a_broken_link_are_named():
    hosts = {0: "a", 1: "b"}
    good = {"stage": "done", "error": "", "total": [3.0, 3.0], "seconds": 0.1}
    [fine] = collective.check_trial({0: good, 1: good | {"seconds": 0.064}}, hosts, "gloo")
    # The slowest rank counts: 2 * (2 - 1) / 2 * 67.1 MB / 0.1 s.
    assert fine.status == OK and "64 MB takes 0.1000 s, 0.67 GB/s" in fine.found
    assert collective.check_trial({0: good, 1: good}, hosts, "nccl")[0].status == WARN
    [wrong] = collective.check_trial({0: good, 1: good | {"total": [3.0, 4.0]}}, hosts, "gloo")
    assert wrong.status == FAIL and wrong.found == "rank 1 on b got [(3.0, 4.0)], the sum is 3"
    [broken] = collective.check_trial({0: good, 1: good | {"stage": "x", "error": "refused"}}, hosts, "gloo")
    assert broken.found == "rank 1 on b at x: refused"
    assert "rank 1 on b died or hangs" in collective.check_trial({0: good}, hosts, "gloo")[0].found


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


def test_a_failure_is_told_before_the_launcher_ends_all_ranks():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = start([*torchrun(), *DOCTOR, "--port", str(port)])
        shown, _ = done.communicate(timeout=300)
    assert done.returncode != 0
    [line] = lines(shown, f"port {port}")  # once, though two ranks run here
    assert line.startswith(f"FAIL  port {port}: in use by ") and f"(process {os.getpid()})" in line
    assert shown.endswith(", 1 FAIL\n") and len(lines(shown, "gloo all-reduce: sum of 1 MB")) == 1


def test_two_ranks_that_differ_are_told_apart(tmp_path, driver):
    (tmp_path / "elsewhere").mkdir()
    port = free_port()
    command = [sys.executable, driver, "differs", "--shared", str(tmp_path), "--timeout", "15"]
    ranks = [start(command, **rank(number, port)) for number in (0, 1)]
    (shown, errors), (silence, _) = (process.communicate(timeout=180) for process in ranks)
    assert [process.returncode for process in ranks] == [2, 2], errors
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


def test_a_rank_that_never_arrives_is_named(tmp_path):
    file = tmp_path / "found.json"
    done = start([sys.executable, *DOCTOR, "--timeout", "5", "--json", str(file)], **rank(0, free_port()))
    shown, errors = done.communicate(timeout=120)
    assert done.returncode == 2, errors
    [line] = lines(shown, "ranks")
    assert line.startswith("FAIL  ranks: rank 1 of 2 (machine 1, from which none arrived) never arrived within 5 s; "
                           f"arrived: rank 0 on {socket.gethostname()} -> ")  # fmt: skip
    assert json.loads(file.read_text())["exit_code"] == 2


def test_a_rank_that_hangs_in_the_sum_is_named_and_both_end(driver):
    port = free_port()
    ranks = [start([sys.executable, driver, "hangs", "--timeout", "8"], **rank(number, port)) for number in (1, 0)]
    shown, errors = ranks[1].communicate(timeout=180)
    ranks[0].kill()  # it sleeps
    ranks[0].communicate()
    assert ranks[1].returncode == 2, errors
    [line] = lines(shown, "gloo all-reduce")
    assert line.startswith(f"FAIL  gloo all-reduce: rank 1 on {socket.gethostname()} died or hangs in it -> ")


def test_a_collective_that_hangs_is_left_behind(monkeypatch):
    monkeypatch.setattr(collective, "_work", lambda trial, *rest: time.sleep(3))
    result, hangs = collective.run_trial(None, place(), "nccl", 0.2)
    assert hangs and (result["stage"], result["error"]) == ("forming the group", "not done within 0.2 s")


def test_a_rank_without_rank_0_says_where_it_looked():
    port = free_port()
    done = start([sys.executable, *DOCTOR, "--timeout", "1"], **rank(1, port))
    shown, errors = done.communicate(timeout=120)
    assert (done.returncode, shown) == (2, "")
    assert f"rlfr: rank 1 on {socket.gethostname()} cannot reach rank 0 at 127.0.0.1:{port} within 1 s: Connection " \
           "refused. " in errors  # fmt: skip


def test_a_server_of_another_kind_is_not_taken_for_rank_0(listener):
    done = start([sys.executable, *DOCTOR, "--timeout", "1"], **rank(1, listener))
    shown, errors = done.communicate(timeout=60)
    assert (done.returncode, shown) == (2, "")
    assert f"what answers at 127.0.0.1:{listener} is not rank 0's store: no greeting within 1 s" in errors
