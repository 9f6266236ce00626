"""Start `rlfr-eval` as a process of its own, kill it at a chosen moment, and look for what it leaves behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

COMMAND = (sys.executable, "-m", "rlfr_eval.cli")


def complete_lines(path: Path) -> list[bytes]:
    """The lines of a file that end with a line end; none if there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != "zombie"
    except psutil.NoSuchProcess:
        return False


def all_gone(pids: Sequence[int], within: float = 20.0) -> bool:
    until = time.monotonic() + within
    while any(map(lives, pids)):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def commands_of_descendants(pid: int) -> dict[int, list[str]]:
    """The processes that a process and its children started, and that run now: pid -> words of the command line."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile, or a zombie
                found[child.pid] = child.cmdline()
    return found


@contextmanager
def started(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`rlfr-eval` with these arguments, which is killed at the end of the block if it still runs."""
    process = subprocess.Popen([*COMMAND, *arguments], env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_when(process: "subprocess.Popen[bytes]", reached: Callable[[], bool]) -> dict[int, list[str]]:
    """Send SIGKILL once `reached()` is true. Returns its `commands_of_descendants`."""
    while not reached():
        assert process.poll() is None, f"ended with code {process.returncode} before it was to be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)  # so that it starts no process between the list and its end
    descendants = commands_of_descendants(process.pid)
    process.kill()
    process.wait()
    return descendants
