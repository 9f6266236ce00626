"""Atomic writes, and where the cache is."""

from pathlib import Path

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_folder, cache_root, replace_directory, write_json, write_text


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


def test_cache_falls_back_to_the_run_folder_and_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"The cache cannot be written \(.*file.*\)\. Set RLFR_CACHE to a folder"):
        cache_folder("logs")
    folder = cache_folder("logs", tmp_path / "run")
    assert folder == tmp_path / "run" / "cache" / "logs" and folder.is_dir()
    assert f"note: the cache cannot be written (Not a directory: {tmp_path}/file/logs)" in capsys.readouterr().err
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))
    assert cache_folder("logs", tmp_path / "run") == tmp_path / "cache" / "logs" and not list(folder.iterdir())


def test_cache_without_a_home_directory(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("RLFR_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match=r"There is no home directory for the cache\. Set RLFR_CACHE"):
        cache_root()
    assert cache_folder("x", tmp_path) == tmp_path / "cache" / "x"
