"""Result of one check, and the rendering of a list of checks."""

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from rlfr_vlm.errors import EXIT_USER_ERROR, printable

OK, WARN, FAIL = "ok", "warn", "FAIL"
COLOURS = {OK: "32", WARN: "33", FAIL: "31"}


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        topic: subject of the check, in a word or two.
        status: OK, WARN or FAIL.
        found: measured value, or what is wrong.
        remedy: what to do about it; empty exactly when the status is OK.
        where: machine and ranks of the result, when it is not about rank 0's machine alone.
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
        """Render the check as one line."""
        mark = f"{self.status:<4}"
        mark = f"\x1b[{COLOURS[self.status]}m{mark}\x1b[0m" if colour else mark
        where = f" [{self.where}]" if self.where else ""
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{mark}  " + printable(f"{self.topic}{where}: {self.found}{remedy}".replace("\n", " "))

    def at(self, where: str) -> "Check":
        """Return the same check with another `where`."""
        return replace(self, where=where)


def ok(topic: str, found: str) -> Check:
    """Return a check that needs no action."""
    return Check(topic, OK, found)


def warn(topic: str, found: str, remedy: str) -> Check:
    """Return a check after which training can start, but may fail later or be slow."""
    return Check(topic, WARN, found, remedy)


def fail(topic: str, found: str, remedy: str) -> Check:
    """Return a check after which training would stop."""
    return Check(topic, FAIL, found, remedy)


def exit_code(checks: Iterable[Check]) -> int:
    """Return 2 if a check failed, else 0."""
    return EXIT_USER_ERROR if any(check.status == FAIL for check in checks) else 0


def summary(checks: Iterable[Check]) -> str:
    """Count the checks of each status."""
    statuses = [check.status for check in checks]
    return ", ".join(f"{statuses.count(status)} {status}" for status in (OK, WARN, FAIL))


def terminal_has_colour() -> bool:
    """Return whether standard output is a terminal and NO_COLOR is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def as_rows(checks: Iterable[Check]) -> list[dict[str, str]]:
    """Return the checks as JSON objects."""
    return [asdict(check) for check in checks]


def first_line(error: BaseException, length: int = 200) -> str:
    """Return the first line of an error's message, or the name of its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]
