"""The golden table: pairs with verdicts derived by hand, most of them before and apart from the grader.

"not right" stands where rules may say wrong or leave it open, but must not accept.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from rlfr_vlm.grading import Item, grade_many

ROWS = [json.loads(line) for line in (Path(__file__).parent / "golden.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def verdicts():
    items = [Item(row["gold"], answer=row["answer"], options=row.get("options", ())) for row in ROWS]
    return [grade.verdict.value for grade in grade_many(items)]


def test_the_table_is_large_and_holds_all_three_verdicts():
    counts = Counter(row["verdict"] for row in ROWS)
    assert len(ROWS) >= 300 and len({row["kind"] for row in ROWS}) >= 30
    assert counts["right"] > 200 and counts["wrong"] > 200 and counts["undecided"] > 50


def test_every_pair(verdicts):
    found = [
        f"gold {row['gold']!r}, answer {row['answer']!r} is {row['verdict']} ({row['why']}), got {verdict}"
        for row, verdict in zip(ROWS, verdicts, strict=True)
        if (verdict == "right" if row["verdict"] == "not right" else verdict != row["verdict"])
    ]
    assert not found, "\n".join(found)
