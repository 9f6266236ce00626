"""Grading server: a process that imports the algebra once, forks workers, and replaces workers that overrun.

The server itself never grades, so it always answers. Requests and replies are JSON lines on stdin and stdout. The
server exits when its stdin closes, which also happens when the process that started it is killed.

A time limit is CPU time of the worker: the kernel's profiling timer ends a worker that has used it up, so that a busy
machine changes no verdict.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NotRequired

from rlfr_vlm.grading.verdict import Decision, Pair, Reason, undecided

PR_SET_PDEATHSIG = 1
SETTLING = 0.05  # seconds that a worker may take to end after its channel has closed
PREPARING = 30.0  # CPU seconds for what a grader loads before an answer
POLLING = 0.001  # seconds between two looks at it, in which no worker gets a request
# Pairs that import all modules and fill the parser's prediction cache before workers are forked.
WARM_UP = (
    (r"\frac{1}{2}", "0.5x"), (r"\sqrt{12}", r"2\sqrt{3}+0"), ("(x+1)^2", "x^2+2x+1"), (r"\{1,2\}", "x>3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"), ("1+i", "i+x"),
    (r"\sin x", r"\cos x"),
    (r"(1,2)\cup(3,\infty)", "1<x<2"), (r"\frac{\pi}{2}+1", r"\frac{2\pi+4}{4}"), (r"|x-1|", r"|1-x|"),
    (r"\frac{1}{s+a}", r"\frac{1}{a+s}"), (r"2^{n}-1", r"2\cdot 2^{n-1}-1"), (r"x\in[0,1]", "[0,1]"), ("n!", "(n)!"),
    (r"\frac{x}{2}-ce^{-2x}", r"-ce^{-2x}+x/2"), (r"y=2x+1", r"y=1+2x"), (r"\log_2 8x", r"3+\log_2 x"),
    (r"\frac{-1+\sqrt{5}}{2}", r"\frac{\sqrt{5}-1}{2}"), (r"1-\frac{1}{\sqrt{1-v^2}}", "v"),
    (r"\sqrt[3]{2}", "2^{1/3}"),
    (r"\binom{n}{2}", "n(n-1)/2"), (r"k \ge 2", "k>2"), (r"\frac{1-p^{2}}{3}", "p"),
)  # fmt: skip


class Request(Pair):
    """A pair with its number in the caller's list."""

    id: int
    again: NotRequired[bool]  # a second attempt after a crash


def forbid_evaluation(on_refusal: Callable[[], None] = lambda: None) -> None:
    """Make compiling source text an error in this process. Modules on disk can still be imported.

    sympy's code for monomials is exempt: it is generated from the number of variables only.

    Args:
        on_refusal: called before the error, which a library may catch.
    """

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event != "compile" or arguments[1] not in ("<string>", "<unknown>", "", None):
            return
        if not sys._getframe(1).f_code.co_filename.endswith(os.path.join("sympy", "polys", "monomials.py")):
            on_refusal()
            raise PermissionError("text is never evaluated")

    sys.addaudithook(hook)


def grade_pair(pair: Pair) -> Decision:
    """Grade one pair in a worker process."""
    if pair.get("plain"):
        return _plain_math_verify(pair["gold"], pair["answer"])
    from rlfr_vlm.grading.compare import compare

    return compare(pair["gold"], pair["answer"], pair.get("tolerance", 0.0))


def _plain_math_verify(gold: str, answer: str) -> Decision:
    """Grade with unpatched math-verify, for comparison. LaTeX only: its parser of plain expressions evaluates text."""
    from math_verify import LatexExtractionConfig, parse, verify

    from rlfr_vlm.grading.verdict import decided

    config = [LatexExtractionConfig()]
    parsed = [parse(text, config, parsing_timeout=None) for text in (f"${gold}$", f"${answer}$")]
    return decided(verify(gold=parsed[0], target=parsed[1], timeout_seconds=None), "math-verify")


@dataclass(frozen=True)
class Grader:
    """What a worker does with a request.

    Attributes:
        grade: returns the decision; its CPU time is limited.
        prepare: is called before it, with a limit of its own: it loads what does not depend on the answer.
    """

    grade: Callable[[Request], Decision] = grade_pair
    prepare: Callable[[Request], None] = lambda request: None


def _run_worker(channel: socket.socket, grader: Grader, time_limit: float, memory_mb: int, parent: int) -> None:
    """Grade requests from the channel until it closes."""
    with contextlib.suppress(OSError, AttributeError):  # Linux: exit with the server, even while grading
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    with contextlib.suppress(ValueError, OSError):
        limit = (used_mb + memory_mb) * 1024 * 1024 * 2  # bytes of address space, about half of which is used
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the default ends the process, even inside a long multiplication
    stream = channel.makefile("rwb")
    for line in stream:
        request = json.loads(line)
        try:
            signal.setitimer(signal.ITIMER_PROF, PREPARING)
            grader.prepare(request)
            signal.setitimer(signal.ITIMER_PROF, request.get("limit") or time_limit)
            decision = grader.grade(request)
        except (Exception, RecursionError) as error:  # the algebra raises many exception types; none is a verdict
            decision = undecided(type(error).__name__, Reason.CRASH)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        stream.write(json.dumps(_fields(decision)).encode() + b"\n")
        stream.flush()


def _fields(decision: Decision) -> list[str | float | None]:
    return [decision.verdict.value, decision.path, decision.reason, decision.score]


@dataclass
class Worker:
    """A forked process and its current request.

    Attributes:
        pid: process id.
        channel: the server's end of the socket.
        request: the request being graded; None while idle.
        received: bytes of an incomplete reply.
    """

    pid: int
    channel: socket.socket
    request: Request | None = None
    received: bytes = b""


@dataclass
class Server:
    """Distributes requests, one per worker at a time, and replaces workers that overrun."""

    count: int
    time_limit: float
    memory_mb: int
    grader: Grader = field(default_factory=Grader)
    waiting: deque[Request] = field(default_factory=deque)
    workers: list[Worker] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    received: bytes = b""

    def run(self) -> None:
        """Serve until stdin closes."""
        self.selector.register(0, selectors.EVENT_READ)
        for _ in range(self.count):
            self._fork()
        while True:
            for key, _ in self.selector.select():
                if key.fd == 0:
                    if not self._read_requests():
                        return self._end_workers()
                else:
                    self._read_reply(key.data)
            self._assign()

    def _fork(self) -> None:
        server_end, worker_end = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                server_end.close()
                os.close(0)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no reply
                for sibling in self.workers:
                    sibling.channel.close()
                _run_worker(worker_end, self.grader, self.time_limit, self.memory_mb, parent)
            os._exit(0)
        worker_end.close()
        worker = Worker(pid, server_end)
        self.workers.append(worker)
        self.selector.register(server_end, selectors.EVENT_READ, worker)

    def _read_requests(self) -> bool:
        """Queue the requests on stdin; return False if stdin is closed."""
        block = os.read(0, 1 << 16)
        if not block:
            return False
        *lines, self.received = (self.received + block).split(b"\n")
        self.waiting.extend(json.loads(line) for line in lines)
        return True

    def _read_reply(self, worker: Worker) -> None:
        try:
            block = worker.channel.recv(1 << 16)
        except OSError:
            block = b""
        if not block:
            return self._replace(worker)
        worker.received += block
        if worker.received.endswith(b"\n") and worker.request:
            reply(worker.request["id"], json.loads(worker.received))
            worker.request, worker.received = None, b""
        return None

    def _replace(self, worker: Worker) -> None:
        """Answer for a worker that ended, and start another one. Its status tells a time-out from a crash."""
        self.selector.unregister(worker.channel)
        self.workers.remove(worker)
        timed_out = _end_worker(worker) == -signal.SIGPROF
        request = worker.request
        if request and not timed_out and not request.get("again"):
            self.waiting.appendleft({**request, "again": True})  # another process may have killed the worker
        elif request:
            reply(request["id"], ["undecided", "algebra", Reason.TIME_OUT if timed_out else Reason.CRASH])
        self._fork()

    def _assign(self) -> None:
        for worker in self.workers:
            if self.waiting and worker.request is None:
                worker.request = self.waiting.popleft()
                with contextlib.suppress(OSError):  # the next select reports a dead worker
                    worker.channel.sendall(json.dumps(worker.request).encode() + b"\n")

    def _end_workers(self) -> None:
        for worker in self.workers:
            _end_worker(worker)


def _end_worker(worker: Worker) -> int | None:
    """End a worker, if it has not ended, and return its exit code; None if the system no longer knows it."""
    worker.channel.close()
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        end = time.monotonic() + SETTLING
        while not pid and time.monotonic() < end:  # its channel closes a moment before its status is there
            time.sleep(POLLING)
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if not pid:
            os.kill(worker.pid, signal.SIGKILL)
            pid, status = os.waitpid(worker.pid, 0)
        return os.waitstatus_to_exitcode(status)
    return None


def reply(request_id: int, decision: Sequence[str | float | None]) -> None:
    """Send the fields of a decision to the process that asked."""
    os.write(1, json.dumps([request_id, *decision]).encode() + b"\n")


def main() -> None:
    """Load the algebra and serve. Command-line arguments: workers, seconds per pair, memory per worker in MB."""
    import logging

    logging.disable(logging.CRITICAL)
    from rlfr_vlm.grading.algebra import patch_libraries

    patch_libraries()
    for gold, answer in WARM_UP:
        with contextlib.suppress(Exception):
            grade_pair({"gold": gold, "answer": answer})
    forbid_evaluation()
    gc.freeze()  # otherwise a collection in a worker copies the memory that it shares with the server
    reply(-1, ["ready", "", ""])
    Server(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])).run()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent process has already exited
        main()
