"""Run the command of a part in processes of its own, with a time limit and a log, and leave none of them behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL = 0.2  # seconds between two looks at the process
GRACE = 8.0  # seconds between asking a process to end and ending it


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative where a signal ended it.
        timed_out: whether it was ended at its limit.
    """

    code: int
    seconds: float
    timed_out: bool


def run(
    command: Sequence[str],
    limit: float,
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    each_poll: Callable[[], None] = lambda: None,
    grace: float = GRACE,
) -> Ended:
    """Run a command until it ends, or until `limit` seconds have passed.

    Args:
        log: file that its output is added to.
        folder: in which it runs.
        each_poll: is called while it runs.
        grace: seconds within the limit in which it may end by itself after SIGTERM.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, env=dict(environment),
            cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            asked = False
            while process.poll() is None:
                passed = time.monotonic() - started
                if passed >= limit:
                    break
                if passed >= limit - min(grace, limit / 4) and not asked:
                    asked = True
                    process.send_signal(signal.SIGTERM)
                each_poll()
                time.sleep(POLL)
            timed_out = process.poll() is None or asked
        finally:  # also when this program is stopped
            _end(process)
    return Ended(process.returncode, time.monotonic() - started, timed_out)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that still runs, all its descendants, and what is left of its group."""
    for descendant in _descendants(process.pid) if process.poll() is None else ():
        with suppress(ProcessLookupError):
            os.kill(descendant, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _descendants(pid: int) -> list[int]:
    """Process ids of all descendants, by /proc: they may have groups of their own."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):  # it has just ended
            parent = int(status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found, waiting = [], [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found
