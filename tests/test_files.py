"""Atomic writes."""

import pytest

from rlfr_vlm.files import replace_directory, write_json, write_text


def test_text_replaces_and_leaves_no_temporary_file(tmp_path):
    write_text(tmp_path / "sub" / "a.txt", "one")
    write_text(tmp_path / "sub" / "a.txt", "two")
    assert (tmp_path / "sub" / "a.txt").read_text() == "two"
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["a.txt"]


def test_nan_is_refused_and_the_old_file_kept(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}\n'


def test_failed_directory_keeps_the_old_one(tmp_path):
    with replace_directory(tmp_path / "d") as folder:
        (folder / "f").write_text("old")
    with pytest.raises(RuntimeError), replace_directory(tmp_path / "d") as folder:
        (folder / "f").write_text("half")
        raise RuntimeError
    assert (tmp_path / "d" / "f").read_text() == "old"
    with replace_directory(tmp_path / "d") as folder:
        (folder / "g").write_text("new")
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["g"]
    assert [p.name for p in tmp_path.iterdir()] == ["d"]
