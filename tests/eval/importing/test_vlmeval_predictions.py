"""VLMEvalKit's prediction files: cells as text, answers that are none, whose answers they are."""

import json
import sys

import pytest

from rlfr_eval.importing.formats import read_file
from rlfr_eval.importing.vlmeval_predictions import LONGEST_CELL
from rlfr_vlm.errors import UserError
from tests.eval.importing.logs import write_tsv

ROWS = [
    {"index": 7, "question": 'How "many"?\tOr not\nat all?', "answer": 14, "A": "", "prediction": "It is\n14"},
    {"index": 8, "question": "How many?", "answer": 15, "A": "", "prediction": ""},
    {"index": 9, "question": "How many?", "answer": 16, "A": "", "prediction": "Failed to obtain answer via API."},
]


def test_a_table_of_tabs(tmp_path):
    folder = tmp_path / "T20260818_Ge8e78f05"
    file = read_file(write_tsv(folder / "Qwen2.5-VL_MathVista_MINI.tsv", ROWS), None, ("MathVista_MINI", "MINI"))
    assert (file.format, file.model, file.task, file.version) == (
        "vlmeval",
        "Qwen2.5-VL",
        "MathVista_MINI",
        "e8e78f05",
    )
    first, second, third = file.entries
    assert (first.index, first.answers, first.target) == ("7", ("It is\n14",), "14")
    assert first.texts == ('How "many"?\tOr not\nat all?',)
    assert second.answers == ("",) and not second.failure
    assert third.answers == () and third.failure == "the request failed in VLMEvalKit" and third.index == "9"


def test_a_list_of_objects_and_the_commit_of_a_run(tmp_path):
    path = tmp_path / "m_DynaMath.json"
    path.write_text(json.dumps([{**ROWS[0], "A": float("nan")}], indent=4))
    (tmp_path / "status.json").write_text(json.dumps({"commit": "e8e78f05"}))
    file = read_file(path, None, ("DynaMath",))
    assert file.entries[0].answers == ("It is\n14",) and file.entries[0].index == "7" and file.version == "e8e78f05"


def test_a_name_that_tells_nothing(tmp_path):
    file = read_file(write_tsv(tmp_path / "predictions.tsv", ROWS), None, ("MathVista_MINI",))
    assert (file.model, file.task, file.version) == ("", "", "")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "index\tquestion\n1\tx\n", "has no known format; it begins with"),
        ("a.tsv", "index\tprediction\n", "has column names and no rows"),
        ("a.tsv", "index\tprediction\n1\tx\ty\n", "row 1, has 3 cells; its columns are 2"),
        ("a.json", "[1, 2]", "has no column index and no column prediction"),
        ("a.json", "[{", "is not JSON"),
    ],
)
def test_a_table_that_is_none_has_one_message(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as caught:
        read_file(tmp_path / name, None, ())
    assert said in str(caught.value)


def test_without_openpyxl_the_message_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04rest")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r"pip install 'rlfr-vlm\[xlsx\]'"):
        read_file(tmp_path / "a.xlsx", None, ())


def test_a_workbook_is_read_as_text(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    predictions = ["=1+1", "7", None, "x" * LONGEST_CELL, "http://a.b/c", "a_x000D_\nb"]
    book.active.append(["index", "question", "prediction"])
    for number, text in enumerate(predictions):
        book.active.append([number, "How many?", text])
    book.save(tmp_path / "m_WeMath.xlsx")
    file = read_file(tmp_path / "m_WeMath.xlsx", None, ("WeMath",))
    assert [entry.index for entry in file.entries] == ["0", "1", "2", "3", "4", "5"]
    assert [entry.answers for entry in file.entries] == [("=1+1",), ("7",), ("",), (), ("http://a.b/c",), ("a\r\nb",)]
    assert "cut off at the 32,767 characters" in file.entries[3].failure and "1 cells are empty" in file.notes[0]


def test_a_broken_workbook(tmp_path):
    pytest.importorskip("openpyxl")
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UserError, match="is no xlsx file that can be read"):
        read_file(tmp_path / "a.xlsx", None, ())
