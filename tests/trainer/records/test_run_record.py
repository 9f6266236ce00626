"""The run record: versions, data, command without secrets, earlier starts."""

import json

from transformers import TrainingArguments

from rlfr_vlm.trainer.records.run_record import git_state, mark_finished, write_run_record


def test_record_and_earlier_starts(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, seed=7, report_to="none")
    data = {"name": "digits", "rows": 3, "fingerprint": "abc"}
    write_run_record(tmp_path, ["rlfr", "train", "--hub_token", "secret-1", "--seed", "7"], args, data)
    first = json.loads((tmp_path / "run.json").read_text())
    assert first["command"] == ["rlfr", "train", "--hub_token", "<set>", "--seed", "7"] and first["earlier"] == []
    assert first["seed"] == 7 and first["data"] == data and first["versions"]["torch"] and first["processes"] == 1
    write_run_record(tmp_path, ["rlfr", "train"], args, data, resumed=True)
    second = json.loads((tmp_path / "run.json").read_text())
    assert [start["started"] for start in second["earlier"]] == [first["started"]]
    write_run_record(tmp_path, ["rlfr", "train"], args, data)
    assert json.loads((tmp_path / "run.json").read_text())["earlier"] == []
    assert "secret-1" not in (tmp_path / "run.json").read_text()


def test_the_mark_of_a_finished_run_stays_until_it_goes_on(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    mark_finished(tmp_path, 4)
    assert not (tmp_path / "run.json").exists()  # there is no run
    write_run_record(tmp_path, ["rlfr", "train"], args, {"rows": 3})
    mark_finished(tmp_path, 4)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["finished"]["steps"] == 4 and record["data"] == {"rows": 3}
    mark_finished(tmp_path, 9)
    assert json.loads((tmp_path / "run.json").read_text()) == record
    write_run_record(tmp_path, ["rlfr", "train"], args, {"rows": 3}, resumed=True)
    resumed = json.loads((tmp_path / "run.json").read_text())
    assert "finished" not in resumed and len(resumed["earlier"]) == 1


def test_git_state_is_of_this_source_or_none():
    state = git_state()
    assert state is None or (len(state["commit"]) == 40 and isinstance(state["changed"], bool))
