"""`rlfr doctor` on one process."""

import importlib.metadata
import json

import pytest

from rlfr_vlm.cli import main
from rlfr_vlm.doctor.checks import Check
from tests.doctor.helpers import RANK_VARIABLES, SECRET, SECRETS, set_disk_usage
from tests.ports import held_port


@pytest.fixture(autouse=True)
def single_process(monkeypatch):
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def listener():
    with held_port() as port:
        yield port


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "--port is 70000"),
        (["--timeout", "0"], "--timeout is 0"),
        (["--json", "."], "is a folder"),
        (["--shard", "x"], "Unrecognized arguments: --shard x"),
        (["--port", "x"], "invalid int value: 'x'"),
    ],
)
def test_impossible_options_are_refused(capsys, arguments, message):
    assert main(["doctor", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_single_process_prints_all_checks_and_writes_the_same(tmp_path, monkeypatch, capsys, listener):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    set_disk_usage(monkeypatch, 1e12)
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
    set_disk_usage(monkeypatch, 1e9)
    assert main(arguments) == 2
    assert "FAIL  disk for results: 1.0 GB free" in capsys.readouterr().out
