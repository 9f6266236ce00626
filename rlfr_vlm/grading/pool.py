"""Grade pairs in worker processes that can be killed. The time limit of a pair is CPU time of its worker.

A batch has a budget: its pairs first get a small part of their limit, and a smaller one once most pairs before them
have used theirs up. Those that need more get the whole limit in their order, until as many as the budget allows have
used it up in vain. So a batch of answers that never end takes seconds. Every limit follows from the order of the pairs
and the CPU time of those before them, so that the same pairs stay undecided however busy the machine is.
"""

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
from functools import cache

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.verdict import Decision, Pair, Reason, Verdict, undecided

WINDOW = 64  # unanswered requests at a time, few enough that the pipes cannot fill up
MAX_RESTARTS = 2
FIRST_SHARE = 0.08  # of the time limit, which each pair of a large batch gets first
SECOND_SHARE = 0.05  # the same, once more than `MOST` of the pairs before it have used up their share
MOST = 0.5
FIRST_BLOCK = 16  # pairs after which the share may shrink; then after twice as many, four times as many, and so on
WORKER_BUDGET = 1  # time-outs of a batch for each worker, after which no pair gets more than its share
PAIR_BUDGET = 0.01  # the same, for each pair of the batch
SERVER = "rlfr_vlm.grading.worker"  # compares expressions


@dataclass(frozen=True)
class PoolSettings:
    """Settings of the processes that grade pairs with algebra.

    Attributes:
        workers: number of processes; 0 means one per available CPU core of each local rank, at most 8.
        time_limit: CPU seconds for one pair; the pair is undecided afterwards.
        memory_mb: memory limit of a worker in MB.
    """

    workers: int = 0
    time_limit: float = 1.0
    memory_mb: int = 1024

    def __post_init__(self) -> None:
        if self.workers < 0 or self.time_limit <= 0 or self.memory_mb <= 0:
            raise UserError(
                f"grading_workers is {self.workers} and grading_time_limit is {self.time_limit}. Set grading_workers "
                "to 0 (one per core) or more, and grading_time_limit to more than 0 seconds."
            )

    def worker_count(self) -> int:
        """Return the number of worker processes, with 0 resolved to the available cores."""
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 2
        local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun and accelerate
        return self.workers or max(1, min(8, cores // local_ranks))


class GradingPool:
    """A grading server and its workers. It starts on first use and ends with this process or with `close`.

    It is safe to use from any thread and after a fork: a forked process starts a new server.
    """

    def __init__(self, settings: PoolSettings | None = None, server: str = SERVER) -> None:
        """Prepare a pool.

        Args:
            server: module that runs as the server.
        """
        self.settings = settings or PoolSettings()
        self.server = server
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._owner = os.getpid()
        _register_process_hooks()
        _POOLS.add(self)

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server without waiting for it, so that the first call of `compare` is faster."""
        with self._lock:
            self._spawn()

    @property
    def server_pid(self) -> int | None:
        """Process id of the running server; None if there is none."""
        return self._server.pid if self._server and self._server.poll() is None else None

    def compare(self, pairs: Sequence[Pair]) -> list[Decision]:
        """Return the decisions for pairs, in the order of the pairs."""
        if not pairs:
            return []
        workers, limit = self.settings.worker_count(), self.settings.time_limit
        time_outs = WORKER_BUDGET * workers + PAIR_BUDGET * len(pairs)
        everything = range(len(pairs))
        with self._lock:
            if len(pairs) <= time_outs:
                replies = self._ask(pairs, everything, limit)
            else:
                replies = self._ask_in_blocks(pairs, limit)
                late = [index for index in everything if _timed_out(replies[index])]
                while late and time_outs >= 1:
                    count = min(workers, int(time_outs))
                    again = self._ask(pairs, late[:count], limit)
                    time_outs -= sum(map(_timed_out, again.values()))
                    replies |= again
                    late = late[count:]
        return [replies[index] for index in everything]

    def _ask_in_blocks(self, pairs: Sequence[Pair], limit: float) -> dict[int, Decision]:
        """Return the replies for all pairs, each with a share of the limit, which shrinks after many time-outs."""
        replies: dict[int, Decision] = {}
        while (start := len(replies)) < len(pairs):
            late = sum(map(_timed_out, replies.values()))
            share = SECOND_SHARE if late > MOST * start else FIRST_SHARE
            end = min(max(FIRST_BLOCK, 2 * start), len(pairs))
            replies |= self._ask(pairs, range(start, end), limit * share)
        return replies

    def _ask(self, pairs: Sequence[Pair], indices: Sequence[int], limit: float) -> dict[int, Decision]:
        """Return the replies for some of the pairs, each with a limit of CPU seconds."""
        replies: dict[int, Decision] = {}
        for _ in range(MAX_RESTARTS + 1):
            try:
                self._exchange(pairs, indices, limit, replies)
            except (OSError, ValueError):  # the server was killed: start another one for the remaining pairs
                pass
            except BaseException:  # interrupted: the next call would receive the outstanding replies
                self._stop()
                raise
            if len(replies) == len(indices):
                break
            self._stop()
        crashed = undecided("algebra", Reason.CRASH)
        return {index: replies.get(index, crashed) for index in indices}

    def close(self) -> None:
        """Stop the server and its workers."""
        with self._lock:
            self._stop()

    def _exchange(
        self, pairs: Sequence[Pair], indices: Sequence[int], limit: float, replies: dict[int, Decision]
    ) -> None:
        """Send the pairs that have no reply yet and add their replies."""
        server = self._ready_server()
        assert server.stdin is not None and server.stdout is not None
        pending = [index for index in indices if index not in replies]
        sent = 0
        for received in range(len(pending)):
            while sent < len(pending) and sent - received < WINDOW:
                index = pending[sent]
                server.stdin.write(json.dumps({**pairs[index], "id": index, "limit": limit}).encode() + b"\n")
                sent += 1
            server.stdin.flush()
            index, verdict, *rest = json.loads(server.stdout.readline())
            replies[index] = Decision(Verdict(verdict), *rest)

    def _ready_server(self) -> "subprocess.Popen[bytes]":
        server = self._spawn()
        if not self._ready:
            server.stdout.readline()  # type: ignore[union-attr]
            self._ready = True
        return server

    def _spawn(self) -> "subprocess.Popen[bytes]":
        if self._server is None or self._server.poll() is not None:
            settings = self.settings
            arguments = (settings.worker_count(), settings.time_limit, settings.memory_mb)
            # -P: do not import modules from the working directory
            command = [sys.executable, "-P", "-m", self.server, *map(str, arguments)]
            self._server = subprocess.Popen(
                # new session: Ctrl-C reaches only this process; when it ends, stdin closes and the server exits
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONHASHSEED": "0"},  # some scorers iterate over sets
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
            server.kill() if server.poll() is None and not _exits(server) else None

    def _detach(self) -> None:
        """Drop the parent's server in a forked child. Closes the child's pipe ends, so that the parent can end it."""
        self._lock = threading.Lock()
        server, self._server, self._owner = self._server, None, os.getpid()
        if server is not None:
            devnull = os.open(os.devnull, os.O_RDWR)
            for stream in (server.stdin, server.stdout):
                os.dup2(devnull, stream.fileno())  # type: ignore[union-attr]
            os.close(devnull)
            server.returncode = 0  # only the parent may wait for the server


def _timed_out(decision: Decision) -> bool:
    return decision.reason == Reason.TIME_OUT


def _exits(server: "subprocess.Popen[bytes]") -> bool:
    try:
        server.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return False
    return True


_POOLS: "weakref.WeakSet[GradingPool]" = weakref.WeakSet()
_SHARED: dict[tuple[PoolSettings, str], GradingPool] = {}


def shared_pool(settings: PoolSettings | None = None, server: str = SERVER) -> GradingPool:
    """Return the pool of this process for these settings and this server; equal ones share one pool."""
    key = (settings or PoolSettings(), server)
    if key not in _SHARED:
        _SHARED[key] = GradingPool(*key)
    return _SHARED[key]


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _detach_all() -> None:
    for pool in list(_POOLS):
        pool._detach()


@cache
def _register_process_hooks() -> None:
    atexit.register(_close_all)
    os.register_at_fork(after_in_child=_detach_all)
