"""Run the training commands of a sweep as processes, some at a time; a run that fails does not stop the others."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rlfr_vlm.errors import printable
from rlfr_vlm.redaction import redact_command
from rlfr_vlm.report.header import duration_text
from rlfr_vlm.report.read_run import is_finished
from rlfr_vlm.sweep.definition import SweepRun
from rlfr_vlm.sweep.signals import StopRequests

LOG_FILE = "log.txt"
SHOWN_LINES = 8  # of the log of a run that failed
READ_BYTES = 20_000  # of the end of a log, in which these lines are looked for
PAUSE = 0.1  # seconds between two looks at the processes

Command = Callable[[SweepRun], Sequence[str]]


@dataclass
class Results:
    """How the runs of a sweep ended.

    Attributes:
        failed: run -> exit code.
        stopped: whether the user stopped the sweep.
    """

    finished: list[SweepRun] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)
    stopped: bool = False


@dataclass
class _Process:
    run: SweepRun
    process: "subprocess.Popen[bytes]"
    log: BinaryIO
    place: int
    started: float


class Runner:
    """Runs several commands, `parallel` at a time.

    Args:
        command: returns the command line of a run.
        parallel: runs at a time.
        devices: what CUDA_VISIBLE_DEVICES is for the runs at each place, in turn; empty: what it is.
        kept_open: file descriptors that the runs inherit, such as a lock.
        say: prints a line.
    """

    def __init__(
        self,
        command: Command,
        parallel: int = 1,
        devices: Sequence[str] = (),
        kept_open: Sequence[int] = (),
        say: Callable[[str], None] = print,
    ) -> None:
        self.command, self.parallel, self.devices = command, parallel, devices
        self.kept_open, self.say = kept_open, say
        self._running: list[_Process] = []
        self._waiting: list[SweepRun] = []
        self._seconds: list[float] = []
        self._total = 0

    def run(self, runs: Sequence[SweepRun]) -> Results:
        """Run the commands of all runs that are not finished."""
        results = Results([run for run in runs if is_finished(run.folder)])
        self._waiting = [run for run in runs if run not in results.finished]
        self._total = len(runs)
        with StopRequests() as requests:
            try:
                while self._waiting or self._running:
                    self._obey(requests.count, results)
                    while self._waiting and len(self._running) < self.parallel and not results.stopped:
                        self._start(self._waiting.pop(0))
                    for one in [one for one in self._running if one.process.poll() is not None]:
                        self._end(one, results)
                    time.sleep(PAUSE)
            finally:  # an error of this program must leave no process behind
                self._signal(signal.SIGKILL)
                for one in self._running:
                    one.process.wait()
        return results

    def _start(self, run: SweepRun) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        place = min(set(range(self.parallel)) - {one.place for one in self._running})
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[place % len(self.devices)]
        command = list(self.command(run))
        log = (run.folder / LOG_FILE).open("ab")
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}: {' '.join(redact_command(command))}\n".encode())
        log.flush()
        # a group of its own: Ctrl-C reaches this process alone, which passes it on once
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=self.kept_open,
        )
        self._running.append(_Process(run, process, log, place, time.monotonic()))
        number = self._total - len(self._waiting)
        self.say(f"[{number}/{self._total}] {run.name}: started; its output is in {run.folder / LOG_FILE}")

    def _end(self, one: _Process, results: Results) -> None:
        self._running.remove(one)
        one.log.close()
        code, run, seconds = one.process.returncode, one.run, time.monotonic() - one.started
        if code == 0:
            results.finished.append(run)
            self._seconds.append(seconds)
            self.say(f"{run.name}: finished in {duration_text(seconds)}{self._time_left()}")
        elif results.stopped:
            self.say(f"{run.name}: stopped")
        else:
            results.failed[run.name] = code
            lines = "".join(f"\n    {line}" for line in last_lines(run.folder / LOG_FILE))
            self.say(f"{run.name}: failed with exit code {code}; the end of {run.folder / LOG_FILE}:{lines}")

    def _time_left(self) -> str:
        """Say how long the runs that are left take at the mean speed of those that this call finished."""
        left = len(self._waiting) + len(self._running)
        if not left:
            return ""
        now, mean = time.monotonic(), sum(self._seconds) / len(self._seconds)
        begun = sum(max(0.0, mean - (now - one.started)) for one in self._running)
        seconds = (len(self._waiting) * mean + begun) / min(self.parallel, left)
        return f"; {left} left, about {duration_text(seconds)}"

    def _obey(self, requests: int, results: Results) -> None:
        """Stop the runs: at the first request as Ctrl-C does, after which they save; at the next, at once."""
        if requests and not results.stopped:
            results.stopped = True
            self._waiting.clear()
            if self._running:
                names = ", ".join(one.run.name for one in self._running)
                self.say(f"stopping: {names} finish their step and save; press Ctrl-C again to stop at once")
            self._signal(signal.SIGINT)
        elif requests > 1:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for one in self._running:
            if one.process.poll() is None:
                with suppress(ProcessLookupError, PermissionError):  # it has just ended; macOS says the latter
                    os.killpg(one.process.pid, number)


def last_lines(path: Path, count: int = SHOWN_LINES) -> list[str]:
    """Last `count` lines of a log that are not empty; of a progress bar only what was seen last."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - READ_BYTES))
        text = stream.read().decode("utf-8", "replace")
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in re.split("\n", text)]
    return [printable(line) for line in lines if line][-count:]
