"""Marks, damage and pruning of checkpoint folders."""

import json

import pytest

from rlfr_vlm.checkpoint import (
    MARK_FILE,
    check_complete,
    checkpoints,
    damage,
    mark_complete,
    newest_complete,
    prune,
    read_mark,
)
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.version import grader_version


@pytest.fixture
def run(tmp_path):
    """Three complete checkpoints."""
    for step in (2, 4, 10):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "flow").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40_000)  # 10 MB
        (folder / "flow" / "flow.json").write_text("{}")
        mark_complete(folder, processes=2)
    (tmp_path / "checkpoint-best").mkdir()  # not a numbered checkpoint
    return tmp_path


def names(folder):
    return [path.name for path in checkpoints(folder)]


def test_a_mark_lists_every_file(run):
    mark = json.loads((run / "checkpoint-2" / MARK_FILE).read_text())
    assert set(mark["files"]) == {"model.safetensors", "flow/flow.json"} and mark["processes"] == 2
    assert damage(run / "checkpoint-2") is None and mark == read_mark(run / "checkpoint-2")
    assert mark["grader"] == grader_version()


def cut(folder):
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate(9_000_000)


def overwrite(folder):
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(-10, 2)
        stream.write(b"x")


@pytest.mark.parametrize(
    ("damage_files", "message"),
    [
        (lambda f: (f / MARK_FILE).unlink(), "complete.json is missing"),
        (lambda f: (f / MARK_FILE).write_text("{"), "complete.json cannot be read"),
        (lambda f: (f / MARK_FILE).write_text("[]"), "complete.json cannot be read"),
        (lambda f: (f / "flow" / "flow.json").unlink(), "flow/flow.json is missing"),
        (cut, "model.safetensors has 9000000 bytes instead of 10240000"),
        (overwrite, "model.safetensors has been changed"),
    ],
)
def test_damaged_checkpoints_are_skipped_with_a_message_or_refused(run, capsys, damage_files, message):
    damage_files(run / "checkpoint-10")
    assert newest_complete(run) == run / "checkpoint-4"
    assert f"skipping {run / 'checkpoint-10'}: {message}" in capsys.readouterr().out
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        check_complete(run / "checkpoint-10")
    check_complete(run / "checkpoint-4")


def test_newest_checkpoint_of_a_missing_folder_is_none(tmp_path):
    assert newest_complete(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("limit", "keep", "left"),
    [
        (None, None, [2, 4, 10]), (3, None, [2, 4, 10]), (2, None, [4, 10]), (1, None, [10]), (0, None, [2, 4, 10]),
        (1, 2, [2, 10]), (2, 2, [2, 10]), (1, 10, [10]),
    ],
)  # fmt: skip
def test_pruning_keeps_the_newest_and_the_best(run, limit, keep, left):
    prune(run, limit, None, keep and str(run / f"checkpoint-{keep}"))
    assert names(run) == [f"checkpoint-{step}" for step in left]
    assert (run / "checkpoint-best").is_dir()


def test_the_checkpoint_just_saved_is_kept_even_if_it_is_not_the_newest(run):
    prune(run, 1, run / "checkpoint-4", None)
    assert names(run) == ["checkpoint-4", "checkpoint-10"]
