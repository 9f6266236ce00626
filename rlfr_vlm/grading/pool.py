"""Grade many pairs in killable processes. The clock of a pair starts when a worker takes it up."""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, undecided

WINDOW = 64  # requests on the way at a time, few enough that no pipe can fill up
MAX_RESTARTS = 2


@dataclass(frozen=True)
class PoolSettings:
    """How pairs that need algebra are graded.

    Attributes:
        workers: processes; 0 means one per CPU core of this process's share, at most 8.
        time_limit: seconds for one pair, after which it is undecided.
        memory_mb: memory of a worker.
    """

    workers: int = 0
    time_limit: float = 1.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if self.workers < 0 or self.time_limit <= 0 or self.memory_mb <= 0:
            raise UserError(
                f"grading_workers is {self.workers} and grading_time_limit {self.time_limit}; workers are 0 (one per "
                "core) or more, and the limit is above 0 seconds."
            )

    def count(self) -> int:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 2
        trainers = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun and accelerate
        return self.workers or max(1, min(8, cores // trainers))


class GradingPool:
    """A grading server and its workers; started on first use, ended with this process or by `close`.

    Safe to use from any thread and after a fork: a forked process starts a server of its own.
    """

    def __init__(self, settings: PoolSettings | None = None) -> None:
        self.settings = settings or PoolSettings()
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._owner = os.getpid()
        _POOLS.add(self)

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def start(self) -> None:
        """Start the server now and return at once; the first answers then wait less."""
        with self._lock:
            self._spawn()

    @property
    def server_pid(self) -> int | None:
        """Process id of the running server, if any."""
        return self._server.pid if self._server and self._server.poll() is None else None

    def compare(self, requests: Sequence[dict[str, Any]]) -> list[Decision]:
        """Decisions for requests with `gold`, `answer` and optionally `tolerance`, in their order."""
        if not requests:
            return []
        with self._lock:
            done: dict[int, Decision] = {}
            for _ in range(MAX_RESTARTS + 1):
                try:
                    self._exchange(requests, done)
                except (OSError, ValueError):  # the server was killed: start another, go on
                    pass
                except BaseException:  # interrupted: replies on their way would answer the next call
                    self._stop()
                    raise
                if len(done) == len(requests):
                    break
                self._stop()
        return [done.get(number) or undecided("algebra", Reason.CRASH) for number in range(len(requests))]

    def close(self) -> None:
        """End the server and its workers."""
        with self._lock:
            self._stop()

    def _exchange(self, requests: Sequence[dict[str, Any]], done: dict[int, Decision]) -> None:
        server = self._running()
        assert server.stdin is not None and server.stdout is not None
        todo = [number for number in range(len(requests)) if number not in done]
        sent = 0
        for received in range(len(todo)):
            while sent < len(todo) and sent - received < WINDOW:
                number = todo[sent]
                server.stdin.write(json.dumps({**requests[number], "id": number}).encode() + b"\n")
                sent += 1
            server.stdin.flush()
            number, verdict, path, reason = json.loads(server.stdout.readline())
            done[number] = Decision(Verdict(verdict), path, reason)

    def _running(self) -> "subprocess.Popen[bytes]":
        server = self._spawn()
        if not self._ready:
            server.stdout.readline()  # type: ignore[union-attr]
            self._ready = True
        return server

    def _spawn(self) -> "subprocess.Popen[bytes]":
        if self._server is None or self._server.poll() is not None:
            settings = self.settings
            # -P: the working directory is not a place to import from
            command = [sys.executable, "-P", "-m", "rlfr_vlm.grading.worker", str(settings.count()),
                       str(settings.time_limit), str(settings.memory_mb)]  # fmt: skip
            self._server = subprocess.Popen(
                # a session of its own: Ctrl-C is for this process, whose end closes the server's stdin
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self._ready = False
        return self._server

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        for stream in (server.stdin, server.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        if self._owner == os.getpid():
            server.kill() if server.poll() is None and not _ends(server) else None

    def _forget(self) -> None:
        """In a forked child: the server is the parent's. Close our ends, so that it still ends with the parent."""
        self._lock = threading.Lock()
        server, self._server, self._owner = self._server, None, os.getpid()
        if server is not None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (server.stdin, server.stdout):
                os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)
            server.returncode = 0  # not ours to wait for


def _ends(server: "subprocess.Popen[bytes]") -> bool:
    try:
        server.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return False
    return True


_POOLS: "weakref.WeakSet[GradingPool]" = weakref.WeakSet()
_SHARED: dict[PoolSettings, GradingPool] = {}


def shared_pool(settings: PoolSettings | None = None) -> GradingPool:
    """This process's pool with these settings; all who ask for the same share one."""
    settings = settings or PoolSettings()
    if settings not in _SHARED:
        _SHARED[settings] = GradingPool(settings)
    return _SHARED[settings]


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool._forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
