"""Run a server and end it with all its descendants when the harness exits or is killed.

`python -m rlfr_vlm.servers.supervisor` reads the server's command, a JSON list, from the first line of its standard
input; every user of the machine can read arguments, and the command may hold a key. The harness holds the write end.
When that end closes, the supervisor sends SIGTERM to the server's process group and then SIGKILL to every descendant.
On Linux the supervisor also adopts the server's orphans, and the kernel kills the server if the supervisor dies.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
GRACE = 10.0  # seconds between SIGTERM and SIGKILL


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_all(server: "subprocess.Popen[bytes]", grace: float = GRACE) -> None:
    """Send SIGTERM to the server's process group, then SIGKILL to all remaining descendants of this process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(grace)
    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(descendants, timeout=5)


def main(command: list[str]) -> int:
    """Run the command until it ends or standard input closes; return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the closed pipe ends the supervisor
    _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def in_child() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=in_child)

    def watch_parent() -> None:
        while os.read(0, 1024):
            pass
        end_all(server)
        os._exit(0)

    threading.Thread(target=watch_parent, daemon=True).start()
    code = server.wait()
    end_all(server, grace=0.5)
    return code


if __name__ == "__main__":
    if line := sys.stdin.buffer.readline():  # empty if the harness was killed before it wrote the command
        sys.exit(main(json.loads(line)))
