"""`rlfr sweep` with a small program instead of `rlfr train`: its output, exit codes, and the lines for clusters."""

import fcntl
import json
import os
import shlex
import signal
import sys
import threading
import time

import pytest

from rlfr_vlm.cli import main
from rlfr_vlm.commands.sweep import carry_out, command_of, print_commands
from rlfr_vlm.errors import UserError
from rlfr_vlm.sweep.machine import devices_of
from tests.sweep.helpers import FakeTraining, sweep_of

PLAN = {
    "rlvr/seed-1": (0.25, 0.5),
    "entropy/seed-1": (0.5, 0.5),
    "rlvr/seed-2": (0.25, 0.5),
    "entropy/seed-2": (0.75, 0.5),
}


def checks():
    return []


def test_a_sweep_from_start_to_end_and_again(tmp_path, capsys):
    training, sweep = FakeTraining(tmp_path, PLAN), sweep_of(tmp_path / "out")
    assert carry_out(sweep, training.command, checks) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("4 runs: rlvr, entropy; 2 seeds each\n[1/4] rlvr/seed-1: started")
    assert "rlvr/seed-1: finished in 0 s; 3 left, about 0 s" in shown
    # differences 0.25 and 0.5, half the interval is tan(0.475 pi) 0.125
    assert "| rlvr  | +0.375 [-1.213, +1.963] (2 pairs)" in shown
    assert f"page: {tmp_path}/out/sweep.html" in shown

    def fails():
        raise AssertionError("nothing is left to check")

    training.change({})
    assert carry_out(sweep, training.command, fails) == 0
    shown = capsys.readouterr().out
    assert training.started == [] and shown.startswith(
        "4 runs: rlvr, entropy; 2 seeds each; 4 are finished and kept\n"
    )
    assert "+0.375 [-1.213, +1.963] (2 pairs)" in shown


def test_a_failed_run_makes_the_exit_code_and_not_the_end(tmp_path, capsys):
    training, sweep = FakeTraining(tmp_path, PLAN | {"entropy/seed-1": 2}), sweep_of(tmp_path / "out")
    assert carry_out(sweep, training.command, checks) == 1
    shown = capsys.readouterr()
    assert shown.err == "rlfr: 1 of 4 runs failed: entropy/seed-1. The same command tries them again.\n"
    assert "entropy lacks seed 1, left out of its mean and its pairs." in shown.out
    assert "+0.500, no interval (1 pair)" in shown.out  # seed 2 alone
    states = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert states["entropy/seed-1"] == "failed with exit code 2"
    training.change(PLAN)
    assert carry_out(sweep, training.command, checks) == 0 and training.started == ["entropy/seed-1"]


def test_nothing_runs_and_nothing_is_written_if_the_check_fails(tmp_path):
    training, sweep = FakeTraining(tmp_path, PLAN), sweep_of(tmp_path / "out")

    def fails():
        raise UserError("Unknown key")

    with pytest.raises(UserError, match="Unknown key"):
        carry_out(sweep, training.command, fails)
    assert training.started == [] and not (tmp_path / "out").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys):
    training, sweep = FakeTraining(tmp_path, PLAN), sweep_of(tmp_path / "out")

    def command(run):
        if run.name == "rlvr/seed-1":
            return training.command(run)
        return [sys.executable, "-S", "-c", "import time; time.sleep(60)"]

    def press():
        log = sweep.runs[1].folder / "log.txt"
        end = time.monotonic() + 30
        while not log.exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    assert carry_out(sweep, command, checks) == 130
    presser.join()
    assert capsys.readouterr().err == "rlfr: stopped; 1 of 4 runs are finished. The same command goes on.\n"
    assert carry_out(sweep, training.command, checks) == 0
    assert training.started == ["rlvr/seed-1", "entropy/seed-1", "rlvr/seed-2", "entropy/seed-2"]


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    training, sweep = FakeTraining(tmp_path, PLAN), sweep_of(tmp_path / "out")
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another sweep, or a run that a killed one left, is working in"):
            carry_out(sweep, training.command, checks)
    assert training.started == []


def test_a_run_that_outlives_its_sweep_keeps_the_folder(tmp_path):
    """The run inherits the lock: while it lives, no other sweep starts it a second time."""
    training, sweep = FakeTraining(tmp_path, PLAN), sweep_of(tmp_path / "out")
    held = []

    def command(run):
        held.append(run.folder / "log.txt")
        return ["ls", "-l", "/proc/self/fd"]

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    carry_out(sweep, command, checks)
    assert all(str(tmp_path / "out" / ".lock") in log.read_text() for log in held) and len(held) == 4
    assert training.started == []


def test_printed_commands_are_those_that_would_run(tmp_path, capsys):
    config = tmp_path / "it's x.yaml"
    config.write_text("flow_path: a\n")
    sweep = sweep_of(
        tmp_path / "out", axes=["system_prompt='Think, then \"answer\".',$HOME"], seeds=[1], config=config
    )
    launcher = ["accelerate", "launch", "--num_processes", "8"]
    assert print_commands(sweep, lambda run: command_of(run, launcher), checks) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [shlex.split(line) for line in lines] == [command_of(run, launcher) for run in sweep.runs]
    first = shlex.split(lines[0])
    assert first[:8] == [*launcher, "-m", "rlfr_vlm.cli", "train", "--config"] and first[8] == str(config)
    assert 'Think, then "answer".' in first and first[-2:] == ["--resume", "auto"]
    assert "$HOME" in shlex.split(lines[1]) and (tmp_path / "out" / "sweep.yaml").exists()


def test_lines_of_finished_runs_are_left_out_and_their_results_are_written(tmp_path, capsys):
    training, sweep = FakeTraining(tmp_path, PLAN | {"entropy/seed-2": 1}), sweep_of(tmp_path / "out")
    carry_out(sweep, training.command, checks)
    capsys.readouterr()
    assert print_commands(sweep, lambda run: command_of(run, []), checks) == 0
    shown = capsys.readouterr()
    (line,) = shown.out.splitlines()
    assert shlex.split(line)[:5] == [sys.executable, "-P", "-m", "rlfr_vlm.cli", "train"]
    assert str(sweep.runs[3].folder) in shlex.split(line)
    assert "3 are finished and kept" in shown.err and "results: " in shown.err


def test_gpus_are_taken_in_turn(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices_of(0) == devices_of(1) == [] and devices_of(3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert devices_of(2) == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "2"], "--out is not set"),
        (["--out", "x", "--parallel", "0"], "--parallel is 0; it must be at least 1"),
        (["--out", "x", "--methods", "rlvr,rlfx"], "--methods has 'rlfx'; known are rlvr, rlfr"),
        (["--out", "x", "--seeds", "many"], "--seeds is 'many'"),
        (["--out", "x", "--set", "beta"], "--set is 'beta'; write it as key=value,value"),
        (["--out", "x", "--launcher", "a 'b"], '--launcher is "a \'b": No closing quotation'),
        (["--out", "x", "--config", "none.yaml"], "No configuration file at none.yaml"),
        (["--out", "x", "--seed", "3"], "seed cannot be set in a sweep: seeds come from --seeds"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.startswith("rlfr: ") and not list(tmp_path.iterdir())


def test_a_changed_sweep_is_refused_before_anything_is_checked(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    sweep_of(tmp_path / "out", ["rlvr", "rlfr"], [1]).write()
    assert main(["sweep", "--out", str(tmp_path / "out"), "--seeds", "2"]) == 2
    assert "holds a sweep with other settings (seeds: [1] -> [1, 2])" in capsys.readouterr().err
