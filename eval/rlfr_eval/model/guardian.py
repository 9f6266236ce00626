"""Runs a server and ends it, with everything it started, when the harness ends, however it ends.

`python -m rlfr_eval.model.guardian COMMAND...`: the harness holds the other end of the guardian's standard input. When
the harness closes it or dies, the guardian ends the server: first SIGTERM to its process group, then SIGKILL to every
descendant. On Linux the guardian adopts the server's orphans, and the server dies with the guardian.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
GRACE = 10.0  # seconds between asking and killing


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def end_all(server: "subprocess.Popen[bytes]", grace: float = GRACE) -> None:
    """Ask the server's group to end, then kill what is left of our descendants."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(grace)
    family = psutil.Process().children(recursive=True)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=5)


def main(command: list[str]) -> int:
    """Run the command until it ends or our standard input does; return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the pipe tells us, and nothing else
    _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=prepare)

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
    sys.exit(main(sys.argv[1:]))
