"""Run a job: `rlfr-eval` in a process that ends, with all that it started, when the service ends or is killed."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from rlfr_eval.service.state import JOB_LOCK, LOG_FILE
from rlfr_vlm.errors import UserError

COMMAND = (sys.executable, "-P", "-m", "rlfr_eval.cli")
LOCK_WAIT = 30.0  # seconds; what a killed service left has ended by then (see GRACE in the supervisor)
LOCK_POLL = 0.1  # seconds


class Stopped(Exception):
    """The job was stopped before its process began."""


class JobProcess:
    """A running `rlfr-eval`.

    The supervisor inherits the lock on the job's folder and ends after all that it started has ended. So a service
    that is started anew waits until the processes of one that was killed are gone.

    Args:
        arguments: the words behind `rlfr-eval`.
        folder: the job's.
        environment: the whole environment of the process.
        note: a line for the log.
        unwanted: set to give up waiting for the lock.

    Raises:
        Stopped: `unwanted` was set.
        UserError: another process still works for this job.
        OSError: the process cannot be started, or the log cannot be written.
    """

    def __init__(
        self, arguments: list[str], folder: Path, environment: Mapping[str, str], note: str, unwanted: threading.Event
    ) -> None:
        lock = _lock(folder, unwanted)
        try:
            with (folder / LOG_FILE).open("ab") as log:
                if note:
                    log.write(f"{note}\n".encode())
                    log.flush()
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "rlfr_vlm.servers.supervisor"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,  # Ctrl-C reaches only the service, which then stops its jobs
                    pass_fds=(lock,),
                )
        finally:
            os.close(lock)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([*COMMAND, *arguments]).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:  # a supervisor without a whole command does nothing, and its exit code would say success
            self.stop()
            self.wait()
            raise

    def wait(self) -> int:
        """Wait until all has ended; returns the exit code, which says nothing after `stop`."""
        return self._process.wait()

    def stop(self) -> None:
        """Have the supervisor end the job: SIGTERM, then SIGKILL. Does not wait."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


def _lock(folder: Path, unwanted: threading.Event) -> int:
    """Take the lock on a job's folder; returns its descriptor."""
    descriptor = os.open(folder / JOB_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() > until:
                os.close(descriptor)
                raise UserError(
                    f"Processes of an earlier service still work in {folder}. End them, and ask again."
                ) from None
        if unwanted.wait(LOCK_POLL):
            os.close(descriptor)
            raise Stopped
