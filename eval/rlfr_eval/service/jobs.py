"""The queue of jobs: submit, cancel and look at them; each worker thread runs one at a time."""

import contextlib
import dataclasses
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_eval.commands.arguments import EXIT_INCOMPLETE
from rlfr_eval.run.folder import RUN_FILE, differences
from rlfr_eval.service.held_model import held_folder, hold, release
from rlfr_eval.service.options import ServiceOptions
from rlfr_eval.service.process import JobProcess, Stopped
from rlfr_eval.service.requests import JobRequest, Refusal, read_request
from rlfr_eval.service.results import AnswerCounts, details, scores_of, summary
from rlfr_eval.service.state import (
    ACTIVE,
    CANCELLED,
    FAILED,
    FINISHED,
    INCOMPLETE,
    LOG_FILE,
    QUEUED,
    RUNNING,
    Job,
    now,
    read_jobs,
)
from rlfr_vlm.benchmark_scores import describe
from rlfr_vlm.errors import UserError, nearest, printable
from rlfr_vlm.files import JsonObject, make_folder

MOST_WAITING = 1000  # queued jobs
STOP_WAIT = 30.0  # seconds that a DELETE waits for the job's end


@dataclass
class _Run:
    """A job that a worker runs: its process once it is started, and whether it is to end."""

    process: JobProcess | None = None
    unwanted: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.unwanted.set()
        if self.process is not None:
            self.process.stop()


class Jobs:
    """The jobs of a service's folder. `start` begins to run them; `stop` ends running ones, and queues them again.

    Raises:
        UserError: a job of the folder cannot be read.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self._jobs: dict[str, Job] = read_jobs(options.folder)
        for job in self._jobs.values():
            if job.state not in ACTIVE:  # a service that was killed may have left what it held
                release(self._folder(job.name))
        self._running: dict[str, _Run] = {}
        self._changed = threading.Condition()  # guards all of these
        self._stopping = False
        self._workers: list[threading.Thread] = []
        self._counts = AnswerCounts()

    def start(self) -> None:
        """Start the workers."""
        for number in range(self.options.parallel):
            device = self.options.devices[number] if self.options.devices else ""
            worker = threading.Thread(target=self._work, args=(device,), name=f"job-{number}", daemon=True)
            worker.start()
            self._workers.append(worker)

    def stop(self) -> None:
        """Stop running jobs, and return when their processes have ended; they are queued again."""
        with self._changed:
            self._stopping = True
            for run in self._running.values():
                run.stop()
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def count(self) -> Mapping[str, int]:
        """Return the number of jobs by state."""
        with self._changed:
            states = [job.state for job in self._jobs.values()]
        return {state: states.count(state) for state in dict.fromkeys(states)}

    def summaries(self) -> list[JsonObject]:
        """Return all jobs, in the order in which they were submitted."""
        with self._changed:
            return [summary(job) for job in sorted(self._jobs.values(), key=lambda job: job.number)]

    def details(self, name: str) -> JsonObject:
        """Return all that is known of a job.

        Raises:
            Refusal: there is none.
        """
        with self._changed:
            job = dataclasses.replace(self._get(name))
        return details(job, self._folder(name), self.options.settings, self._counts)

    def submit(self, content: object) -> tuple[str, bool]:
        """Queue a job, unless it waits, runs or is finished already.

        Args:
            content: the JSON value of the request.

        Returns:
            Its name, and whether it was queued now.

        Raises:
            UserError: the request is wrong.
            Refusal: a job of this name has other settings, or no job can be taken now.
        """
        request = read_request(content, self.options.words)
        with self._changed:
            name = request.name or self._new_name(request.command)
            known = self._jobs.get(name)
            if known is not None:
                # a job that ended before the model was asked, such as one with a wrong address, may be corrected
                if known.state in ACTIVE or (self._folder(name) / RUN_FILE).exists():
                    _check_same(known, request)
                if known.state in ACTIVE or (known.state == FINISHED and scores_of(self._folder(name)) is not None):
                    return name, False
            if self._stopping:
                raise Refusal(503, "The service is ending. Ask the next one.")
            if sum(job.state == QUEUED for job in self._jobs.values()) >= MOST_WAITING:
                raise Refusal(503, f"{MOST_WAITING} jobs wait already. Ask again when some have ended.")
            number = max((job.number for job in self._jobs.values()), default=0) + 1
            job = Job(request, name, number, submitted=now())
            make_folder(self._folder(name))
            if request.hold_model:
                hold(Path(request.options["model"]), self._folder(name))
            job.write(self.options.folder)
            self._jobs[name] = job
            self._changed.notify_all()
        return name, True

    def cancel(self, name: str) -> None:
        """Take a job out of the queue, or stop it and wait for its end; one that has ended stays as it is.

        Raises:
            Refusal: there is none.
        """
        with self._changed:
            job = self._get(name)
            if job.state == QUEUED:
                job.state, job.ended = CANCELLED, now()
                self._store(job)
                release(self._folder(name))
            elif job.state == RUNNING:
                job.stopping = True
                self._running[name].stop()
                self._changed.wait_for(lambda: job.state != RUNNING, STOP_WAIT)

    def _get(self, name: str) -> Job:
        if name not in self._jobs:
            raise Refusal(404, f"There is no job {name[:120]!r}.{nearest(name, self._jobs)} GET /jobs lists them.")
        return self._jobs[name]

    def _folder(self, name: str) -> Path:
        return self.options.folder / name

    def _new_name(self, command: str) -> str:
        number = 1
        while f"{command}-{number}" in self._jobs or self._folder(f"{command}-{number}").exists():
            number += 1
        return f"{command}-{number}"

    def _store(self, job: Job) -> None:
        """Write `job.json`; where that is impossible, the service goes on with what it has in memory."""
        try:
            job.write(self.options.folder)
        except OSError as error:
            _say(f"{job.name}: its state {job.state} cannot be written: {error}")

    def _next(self) -> Job | None:
        waiting = [job for job in self._jobs.values() if job.state == QUEUED]
        return min(waiting, key=lambda job: job.number, default=None)

    def _work(self, device: str) -> None:
        """Run jobs, one after another, until the service ends."""
        while True:
            with self._changed:
                while not self._stopping and self._next() is None:
                    self._changed.wait()
                job = self._next()
                if self._stopping or job is None:
                    return
                run = self._running[job.name] = _Run()
                self._begin(job)
            code, reason = self._run(job, run, device)
            with self._changed:
                del self._running[job.name]
                try:
                    self._end(job, run, code, reason)
                except Exception as error:  # such as scores.json of another shape; a worker must not end
                    traceback.print_exc()
                    job.state, job.reason = FAILED, f"its results cannot be read: {error!r}"
                    self._store(job)
                self._changed.notify_all()

    def _begin(self, job: Job) -> None:
        job.state, job.started, job.ended, job.exit_code, job.reason = RUNNING, now(), "", None, ""
        try:
            job.log_start = (self._folder(job.name) / LOG_FILE).stat().st_size
        except OSError:
            job.log_start = 0
        self._store(job)
        _say(f"{job.name}: running")

    def _run(self, job: Job, run: _Run, device: str) -> tuple[int | None, str]:
        """Run a job to its end; returns the exit code, or why there is none."""
        request, folder = job.request, self._folder(job.name)
        arguments = [request.command, f"--out={folder}", *self.options.words, *request.words()]
        environment = self.options.environment(request, device)
        try:
            make_folder(folder)
            if request.fingerprint:
                model = Path(request.options["model"])
                model = held_folder(model, folder) if request.hold_model else model
                request.check_weights(model)
                arguments.append(f"--model={model}")  # the last one counts
            process = JobProcess(arguments, folder, environment, self.options.note(request), run.unwanted)
            with self._changed:
                run.process = process
                if run.unwanted.is_set():
                    run.stop()
            return process.wait(), ""
        except Stopped:
            return None, ""
        except (OSError, UserError) as error:
            return None, f"rlfr-eval was not started: {error}"
        except Exception:  # a worker must not end
            traceback.print_exc()
            return None, "an error of the service, which it printed"

    def _end(self, job: Job, run: _Run, code: int | None, reason: str) -> None:
        job.ended, job.reason = now(), reason
        ended = code in (0, EXIT_INCOMPLETE) and not run.unwanted.is_set()  # the supervisor's code says nothing then
        scores = scores_of(self._folder(job.name)) if ended else None
        told = describe(scores["benchmarks"]) if scores is not None else ""
        if run.unwanted.is_set():
            job.state = CANCELLED if job.stopping else QUEUED
            job.ended, job.stopping = job.ended if job.stopping else "", False
        elif scores is not None:
            job.state, job.exit_code = (FINISHED if code == 0 else INCOMPLETE), code
            job.reason = "" if code == 0 else "answers or verdicts are missing; the same request goes on"
        else:
            job.state, job.exit_code = FAILED, code
            job.reason = reason or f"rlfr-eval ended with {code}" + (" and left no scores" if code == 0 else "")
        self._store(job)
        if job.state != QUEUED:
            release(self._folder(job.name))
        _say(": ".join(text for text in (job.name, job.state, job.reason, told) if text))


def _say(text: str) -> None:
    """Print a line; a reader that is gone, as after `| head`, must not end a worker."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text), flush=True)


def _check_same(known: Job, request: JobRequest) -> None:
    """Check that a request is for the job of its name.

    Raises:
        Refusal: it is not, or the job is being stopped.
    """
    before, asked = known.request.settings(), request.settings()
    moved = asked.get("moved_from") and asked["moved_from"] == before.get("base_url")
    if moved and known.state not in ACTIVE:  # the run folder checks the model
        before = {**before, "base_url": asked["base_url"], "moved_from": asked["moved_from"]}
    if changed := differences(before, asked):
        raise Refusal(
            409,
            f"The job {known.name} has other settings ({'; '.join(changed[:5])}). Answers of two settings are never "
            "mixed: give another name.",
        )
    if known.stopping:
        raise Refusal(409, f"The job {known.name} is being stopped. Ask again when it is cancelled.")
