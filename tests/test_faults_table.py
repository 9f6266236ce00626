"""The table of faults in `tests/README.md` counts what the tests try."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(
    r"^\| (?P<area>[^|]+) \| (?P<cases>\d+) \| `(?P<file>tests/[\w/]+)\.py`, `(?P<name>\w+)` \|", re.MULTILINE
)
TEXT = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
ROWS = [match.groupdict() for match in ROW.finditer(TEXT)]


def parametrized_by(path: Path) -> set[str]:
    """Names that stand in `pytest.mark.parametrize` of a file."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parametrize")]
    return {inner.id for call in calls for inner in ast.walk(call) if isinstance(inner, ast.Name)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['file']}:{row['name']}")
def test_numbers_of_the_table_are_those_of_the_lists(row):
    module = importlib.import_module(row["file"].replace("/", "."))
    assert len(getattr(module, row["name"])) == int(row["cases"])
    assert row["name"] in parametrized_by(ROOT / f"{row['file']}.py")


def test_table_has_a_sum():
    total = re.search(r"^\| together \| (\d+) \|", TEXT, re.MULTILINE)
    assert total and int(total[1]) == sum(int(row["cases"]) for row in ROWS) and len(ROWS) >= 10
