"""What a check found, and how a list of checks is shown."""

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rlfr_vlm.errors import EXIT_USER_ERROR, printable

OK, WARN, FAIL = "ok", "warn", "FAIL"
COLOURS = {OK: "32", WARN: "33", FAIL: "31"}


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        topic: what was looked at, in a word or two.
        status: OK, WARN or FAIL.
        found: the value.
        remedy: what to do about it; empty exactly when the status is OK.
        where: the machine and ranks it was found on, when that is not rank 0's machine alone.
    """

    topic: str
    status: str
    found: str
    remedy: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        if self.status not in COLOURS or (self.status == OK) == bool(self.remedy):
            raise ValueError(f"a check that is not ok needs a remedy, and only such a check: {self}")

    def line(self, colour: bool = False) -> str:
        """The check in one line."""
        mark = f"{self.status:<4}"
        mark = f"\x1b[{COLOURS[self.status]}m{mark}\x1b[0m" if colour else mark
        where = f" [{self.where}]" if self.where else ""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{mark}  " + printable(f"{self.topic}{where}: {self.found}{remedy}".replace("\n", " "))

    def at(self, where: str) -> "Check":
        """The same check, found somewhere else."""
        return replace(self, where=where)


def ok(topic: str, found: str) -> Check:
    """Nothing to do."""
    return Check(topic, OK, found)


def warn(topic: str, found: str, remedy: str) -> Check:
    """Training can start, but something may go wrong or be slow."""
    return Check(topic, WARN, found, remedy)


def fail(topic: str, found: str, remedy: str) -> Check:
    """Training would stop."""
    return Check(topic, FAIL, found, remedy)


def exit_code(checks: Iterable[Check]) -> int:
    """0 when nothing failed, else 2."""
    return EXIT_USER_ERROR if any(check.status == FAIL for check in checks) else 0


def summary(checks: Iterable[Check]) -> str:
    """How many checks have which status."""
    statuses = [check.status for check in checks]
    return ", ".join(f"{statuses.count(status)} {status}" for status in (OK, WARN, FAIL))


def terminal_has_colour() -> bool:
    """Whether standard output is a terminal whose user has not turned colours off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def as_rows(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Checks as JSON objects."""
    return [asdict(check) for check in checks]
