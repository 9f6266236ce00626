"""The file of rows: what a killed run leaves, and which files are refused."""

import json

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.sampling.sample_file import SampleFile

SETTINGS = {"policy": "p", "dataset_name": "d", "samples": 2, "seed": 0, "batch_size": 3, "out": "x"}


def row(place, **changes):
    """Response `place` of a run with two responses to the prompts 0, 2, 4, ..."""
    return {
        "prompt": "?", "images": [], "response": f"text {place}", "verdict": "right", "reason": "", "truncated": False,
        "prompt_index": 2 * (place // 2), "sample_index": place % 2,
    } | changes  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "rows.jsonl"


def opened(path, **changes):
    file = SampleFile(path, 2, 3)
    try:
        file.open(SETTINGS | changes)
    finally:
        file.close()
    return file


def written(path, count, **changes):
    """A file with the first rows, as if its process had been killed then."""
    file = SampleFile(path, 2, 3)
    file.open(SETTINGS)
    file.start(SETTINGS)
    for start in range(0, count, 3):
        file.append([row(place) for place in range(start, min(start + 3, count))])
    file.close()
    return path.read_bytes()


def test_a_new_file_has_settings_only_once_it_starts(path):
    """A run that fails before its first response, as with the wrong policy, must not fix the settings."""
    file = opened(path)
    assert file.outcomes == [] and file.position is None and file.last is None and not path.parent.exists()
    file.start(SETTINGS)
    file.close()
    assert "policy: p\n" in file.config_path.read_text()
    assert opened(path, policy="q").outcomes == []


def test_rows_are_read_back(path):
    written(path, 6)
    file = opened(path)
    assert [(outcome.prompt, outcome.sample) for outcome in file.outcomes] == [
        (0, 0), (0, 1), (2, 0), (2, 1), (4, 0), (4, 1),
    ]  # fmt: skip
    assert file.position == (4, 1) and file.last == row(5)


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_half_written_line_and_its_batch_are_cut_off(path, cut):
    whole = written(path, 6)
    path.write_bytes(whole[:-cut])
    assert len(opened(path).outcomes) == 3
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:3])


def test_a_last_batch_without_a_summary_is_drawn_again(path):
    """Five rows may be all of a run, or a batch of which one row is missing."""
    written(path, 5)
    assert not opened(path).is_finished() and len(opened(path).outcomes) == 3


def test_a_finished_file_stays_as_it_is(path):
    content = written(path, 5)
    path.with_suffix(".summary.json").write_text(json.dumps({"responses": 5}))
    assert opened(path).is_finished() and path.read_bytes() == content
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:4]))  # the user removed a row: it is drawn again
    assert not opened(path).is_finished() and len(opened(path).outcomes) == 3


def test_other_settings_are_refused_by_name(path):
    written(path, 3)
    with pytest.raises(UserError, match=r"other settings \(policy: p -> q; seed: 0 -> 1\).*name another --out"):
        opened(path, policy="q", seed=1)
    assert len(opened(path, out="elsewhere").outcomes) == 3


def test_files_of_others_are_refused_and_kept(path):
    path.parent.mkdir()
    path.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match=r"exists and is no file of `rlfr sample`.*rows\.config\.yaml"):
        opened(path)
    assert path.read_text() == '{"a": 1}\n'
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is no file of `rlfr sample`"):
        opened(path)


@pytest.mark.parametrize("line", ["not JSON", "[]", '{"a": 1}', json.dumps(row(1, prompt_index="x"))])
def test_a_line_that_is_no_row_is_named(path, line):
    content = written(path, 3)
    path.write_bytes(content + line.encode() + b"\n")
    with pytest.raises(UserError, match=r"Line 4 of .* is no row of `rlfr sample`"):
        opened(path)


@pytest.mark.parametrize(("places", "line"), [((0, 2, 3), 2), ((1, 2, 3), 1), ((0, 1, 0, 1), 3), ((0, 3), 2)], ids=str)
def test_rows_that_were_removed_or_moved_are_refused(path, places, line):
    written(path, 3)
    path.write_text("".join(json.dumps(row(place)) + "\n" for place in places))
    with pytest.raises(UserError, match=f"Line {line} of .*lines were removed or moved"):
        opened(path)


def test_two_processes_do_not_write_the_same_file(path):
    file = SampleFile(path, 2, 3)
    file.start(SETTINGS)
    file.append([row(0), row(1), row(2)])
    with pytest.raises(UserError, match="Another process is writing"):
        opened(path)
    file.close()
    assert len(opened(path).outcomes) == 3
