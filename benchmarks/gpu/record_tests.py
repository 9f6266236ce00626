"""Plugin of pytest: writes the outcome, seconds and recorded numbers of each test to a JSON file as it ends.

    pytest -p benchmarks.gpu.record_tests --record-json FILE

Tests record numbers with pytest's fixture `record_property`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlfr_vlm.files import write_json

if TYPE_CHECKING:
    from rlfr_vlm.files import JsonObject

MESSAGE_LINES = 12  # of a failure


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-json", type=Path, required=True, help="file for the outcomes of the tests")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(config.getoption("--record-json")), "record-json")


class Recorder:
    """Collects the outcomes; a file from before is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.planned = 0
        self.tests: dict[str, JsonObject] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.planned = len(session.items)
        self._write()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.tests[report.nodeid] = {"outcome": "failed", "seconds": 0.0, "message": _end_of(report.longreprtext)}
            self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            entry = self.tests.setdefault(report.nodeid, {"outcome": report.outcome, "seconds": report.duration})
            if report.outcome != "passed":
                entry["outcome"] = report.outcome
                entry["message"] = _end_of(_reason(report))
            entry["numbers"] = dict(report.user_properties)
            self._write()

    def _write(self) -> None:
        write_json(self.path, {"tests": {"planned": self.planned, "tests": self.tests}})


def _reason(report: pytest.TestReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return report.longreprtext


def _end_of(text: str) -> str:
    return "\n".join(text.splitlines()[-MESSAGE_LINES:])
