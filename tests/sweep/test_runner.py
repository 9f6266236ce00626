"""Running the commands of a sweep: finished runs are kept, failures do not stop others, Ctrl-C stops and saves."""

import os
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from rlfr_vlm.sweep.runner import Runner, last_lines
from tests.sweep.helpers import FakeTraining, sweep_of

RUNS = ["rlvr/seed-1", "entropy/seed-1", "rlvr/seed-2", "entropy/seed-2"]


def test_finished_runs_are_kept(tmp_path):
    training, sweep = FakeTraining(tmp_path, dict.fromkeys(RUNS, (0.5, 0.5))), sweep_of(tmp_path / "out")
    results = Runner(training.command).run(sweep.runs[:2])
    assert training.started == RUNS[:2] and not results.failed
    results = Runner(training.command).run(sweep.runs)
    assert training.started == RUNS and [run.name for run in results.finished] == RUNS


def test_a_run_that_fails_is_named_with_the_end_of_its_log_and_tried_again(tmp_path):
    plan = dict.fromkeys(RUNS, (0.5, 0.5)) | {"rlvr/seed-1": 3}
    training, sweep, said = FakeTraining(tmp_path, plan), sweep_of(tmp_path / "out"), []
    results = Runner(training.command, say=said.append).run(sweep.runs)
    assert training.started == RUNS and results.failed == {"rlvr/seed-1": 3} and len(results.finished) == 3
    (text,) = [line for line in said if "failed" in line]
    log = tmp_path / "out" / "rlvr" / "seed-1" / "log.txt"
    start, *lines = text.split("\n    ")
    assert start == f"rlvr/seed-1: failed with exit code 3; the end of {log}:"
    assert lines[1:] == ["loading", "2/2", "rlfr: the disk is full"]
    training.change(dict.fromkeys(RUNS, (0.5, 0.5)))
    assert not Runner(training.command).run(sweep.runs).failed
    assert training.started == ["rlvr/seed-1"]
    assert log.read_text().count("--- ") == 2  # the first start's output is kept


def test_time_left_is_told_from_the_first_finished_run_on(tmp_path, monkeypatch):
    training, sweep, said = FakeTraining(tmp_path, dict.fromkeys(RUNS, (0.5, 0.5))), sweep_of(tmp_path / "out"), []
    clock = iter(range(0, 10_000, 100))  # started at 0, ended at 100, ...
    fake = SimpleNamespace(monotonic=lambda: next(clock), sleep=time.sleep, strftime=time.strftime)
    monkeypatch.setattr("rlfr_vlm.sweep.runner.time", fake)
    monkeypatch.setattr(Runner, "_time_left", lambda self: f" {len(self._waiting)} {self._seconds}")
    Runner(training.command, say=said.append).run(sweep.runs[:2])
    assert [line for line in said if "finished" in line] == [
        "rlvr/seed-1: finished in 100 s 1 [100]",
        "entropy/seed-1: finished in 100 s 0 [100, 100]",
    ]
    monkeypatch.undo()
    runner = Runner(training.command, parallel=2)
    assert runner._time_left() == ""
    runner._waiting, runner._seconds = sweep.runs[:3], [100.0, 200.0]
    assert runner._time_left() == "; 3 left, about 3 min 45 s"  # 3 x 150 s, two at a time


# Notes when it starts and ends, and which GPU it was given.
SLOW = """
import os, pathlib, sys, time
log = pathlib.Path(sys.argv[1])
def note(text):
    with log.open("a") as stream:
        stream.write(text + "\\n")
note("start " + os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
while log.read_text().count("start") < 2: time.sleep(0.01)
note("end")
"""


def test_two_at_a_time_each_with_a_gpu(tmp_path):
    """Each of them ends only when the other has started."""
    log = tmp_path / "log"
    log.write_text("")

    def command(run):
        return [sys.executable, "-S", "-c", SLOW, str(log)]

    results = Runner(command, parallel=2, devices=["4", "6"]).run(sweep_of(tmp_path / "out").runs[:2])
    assert len(results.finished) == 2
    assert sorted(log.read_text().split("\n")[:2]) == ["start 4", "start 6"]


# Saves and ends with 130 when it is interrupted, as `rlfr train` does; a second signal is not caught.
TRAINING = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(number, frame):
    (folder / "saved").write_text("")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[2] == "saves":
        sys.exit(130)
signal.signal(signal.SIGINT, stop)
(folder / "ready").write_text("")
while True: time.sleep(0.01)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("ends", "presses"), [("saves", 1), ("hangs", 2)])
def test_ctrl_c_stops_the_runs_and_starts_no_other(tmp_path, number, ends, presses):
    sweep, said = sweep_of(tmp_path / "out"), []
    processes = []

    def command(run):
        processes.append(run)
        return [sys.executable, "-S", "-c", TRAINING, str(run.folder), ends]

    def press():
        wait_for(lambda: all((run.folder / "ready").exists() for run in sweep.runs[:2]))
        os.kill(os.getpid(), number)
        if presses == 2:
            wait_for(lambda: all((run.folder / "saved").exists() for run in sweep.runs[:2]))
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    presser = threading.Thread(target=press)
    presser.start()
    results = Runner(command, parallel=2, say=said.append).run(sweep.runs)
    presser.join()
    assert results.stopped and not results.failed and not results.finished
    assert processes == sweep.runs[:2] and all((run.folder / "saved").exists() for run in processes)
    assert "stopping: rlvr/seed-1, entropy/seed-1 finish their step and save" in "".join(said)
    assert {line for line in said if line.endswith(": stopped")} == {f"{run.name}: stopped" for run in sweep.runs[:2]}
    assert signal.getsignal(number) == before


def wait_for(happened):
    end = time.monotonic() + 30
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)
    assert happened()


STAYING = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpid()))
time.sleep(60)
"""


def test_an_error_of_the_sweep_leaves_no_process(tmp_path):
    sweep, said = sweep_of(tmp_path / "out"), []
    pid = sweep.runs[0].folder / "pid"

    def command(run):
        if said:
            wait_for(lambda: pid.is_file() and pid.read_text())
            raise OSError(28, "No space left on device")
        return [sys.executable, "-S", "-c", STAYING, str(run.folder)]

    with pytest.raises(OSError, match="No space left"):
        Runner(command, parallel=2, say=said.append).run(sweep.runs)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_the_end_of_a_long_log(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(
        b"x" * 50_000 + b"\n" + b"".join(b"%d\r\n" % number for number in range(20)) + b"1%\r99%\r\n\xff\n"
    )
    assert last_lines(path) == [*map(str, range(14, 20)), "99%", "\ufffd"]
