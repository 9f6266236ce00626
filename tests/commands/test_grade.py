"""`rlfr grade`."""

import json

import pytest

from rlfr_vlm.cli import main


def test_one_answer(capsys):
    assert main(["grade", "--gold", r"\sqrt{12}", "--answer", r"so \boxed{2\sqrt{3}}"]) == 0
    out = capsys.readouterr().out
    assert "verdict    right" in out and r"'2\\sqrt{3}' (boxed; reasoning none)" in out and "path       algebra" in out


def test_bare_answer_and_several_golds(capsys):
    assert main(["grade", "--gold", "8", "--gold", "7", "--answer", "7.0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "right"


def test_file_with_comparison(tmp_path, capsys):
    rows = [
        {"gold": "7", "response": r"\boxed{7}"},
        {"answer": "7", "response": "no"},
        {"gold": "1,000", "answer": "1\\,000"},
        {"gold": "x=3", "answer": "4"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert main(["grade", str(tmp_path / "rows.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "4 rows: 2 right, 1 wrong, 1 undecided" in out and "undecided, no answer: 1" in out
    assert main(["grade", str(tmp_path / "rows.jsonl"), "--compare"]) == 0
    assert "math-verify alone disagrees on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Line 1 of"),
        ('{"gold": "7"}', "it needs `gold` and `response`"),
        ("[1]", "it needs `gold` and `response`"),
        ("\n", "has no rows"),
    ],
)
def test_bad_files(tmp_path, capsys, content, message):
    (tmp_path / "rows.jsonl").write_text(content)
    assert main(["grade", str(tmp_path / "rows.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_neither_file_nor_pair(capsys):
    assert main(["grade", "--gold", "7"]) == 2
    assert "Give either a JSONL file, or --gold and --answer" in capsys.readouterr().err
    assert main(["grade", "nowhere.jsonl"]) == 2
