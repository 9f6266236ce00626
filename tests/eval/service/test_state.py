"""The files of the service: jobs are read as they were written, a broken one is one message, one service a folder."""

import json

import pytest

from rlfr_eval.service.held_model import held_folder, hold, release
from rlfr_eval.service.requests import JobRequest
from rlfr_eval.service.state import Job, locked, read_jobs
from rlfr_vlm.errors import UserError


def job(name, number, state, **fields):
    return Job(JobRequest("lm", name, {"suite": ["math500"], "limit": 2}, "f" * 16), name, number, state, **fields)


def test_jobs_are_read_in_order_and_those_that_ran_wait_again(tmp_path):
    written = [
        job("b", 2, "running", started="then"),
        job("a", 3, "queued"),
        job("c", 1, "failed", exit_code=2, reason="x"),
    ]
    for one in written:
        one.write(tmp_path)
    (tmp_path / "other").mkdir()  # a run that no service made
    found = read_jobs(tmp_path)
    assert list(found) == ["c", "b", "a"] and found["b"].state == "queued"
    assert found["c"] == written[2] and found["a"] == written[1]


@pytest.mark.parametrize("change", [
    {"format": 2}, {"state": "paused"}, {"name": "other"}, {"number": "1"}, {"request": {}}, {"request": 5},
    {"request": {"command": "rm"}}, {"surplus": 1}, None, "[]", '{"format":',
])  # fmt: skip
def test_a_broken_job_is_one_message(tmp_path, change):
    job("a", 1, "queued").write(tmp_path)
    path = tmp_path / "a" / "job.json"
    whole = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else "" if change is None else json.dumps({**whole, **change}))
    with pytest.raises(UserError, match=r"a/job\.json cannot be read .* Move it away"):
        read_jobs(tmp_path)


def test_one_service_at_a_time_has_a_folder(tmp_path):
    other = locked(tmp_path / "jobs")
    with locked(tmp_path / "jobs"), pytest.raises(UserError, match="Another `rlfr-eval serve` works in"):
        other.__enter__()
    with locked(tmp_path / "jobs"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot make the folder"), locked(tmp_path / "file"):
        pass


def test_a_held_model_outlives_its_folder(tmp_path):
    model = tmp_path / "run" / "checkpoint-1"
    (model / "global_step1").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "optimizer.pt"):
        (model / name).write_text(name)
    (tmp_path / "run" / "config.yaml").write_text("x: 1")
    hold(model, tmp_path / "job")
    for path in (model / "config.json", model / "model.safetensors"):
        path.unlink()
    held = held_folder(model, tmp_path / "job")
    assert held.name == "checkpoint-1"
    assert {path.name: path.read_text() for path in held.iterdir()} == {
        "config.json": "config.json", "model.safetensors": "model.safetensors"}  # fmt: skip
    assert (held.parent / "config.yaml").read_text() == "x: 1"
    hold(model, tmp_path / "job")  # again: what is there now
    assert list(held.iterdir()) == []
    release(tmp_path / "job")
    assert list((tmp_path / "job").iterdir()) == []


def test_a_model_on_another_file_system_cannot_be_held(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")

    def link(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", link)
    with pytest.raises(UserError, match=r"cannot make hard links to .* \(Invalid cross-device link\)"):
        hold(tmp_path / "m", tmp_path / "job")
    assert not (tmp_path / "job" / "held_model").exists()
