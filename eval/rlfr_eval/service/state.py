"""The service's folder: one folder for each job, whose `job.json` is written whenever the job's state changes.

DIR/.service.lock   held by the service
DIR/NAME/           the run folder of a job, as `rlfr-eval lm --out` writes it, and beside its files:
    job.json        the job and its state
    job.log         what `rlfr-eval` printed
    .job.lock       held while the job, or what a killed service left of it, runs
"""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_eval.service.requests import COMMANDS, NAME, JobRequest
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, make_folder, write_json

JOB_FILE, LOG_FILE, JOB_LOCK, SERVICE_LOCK = "job.json", "job.log", ".job.lock", ".service.lock"
QUEUED, RUNNING, FINISHED, INCOMPLETE = "queued", "running", "finished", "incomplete"
FAILED, CANCELLED = "failed", "cancelled"
STATES = (QUEUED, RUNNING, FINISHED, INCOMPLETE, FAILED, CANCELLED)
ACTIVE = (QUEUED, RUNNING)
FORMAT = 1


@dataclass
class Job:
    """A job, as `job.json` has it.

    Attributes:
        number: place in the queue; jobs start in the order of numbers.
        state: one of `STATES`; `incomplete` has scores, but lacks answers or verdicts that another call could add.
        submitted, started, ended: local times; empty if not yet.
        exit_code: of the last call of `rlfr-eval`; None if it was stopped or has not run.
        reason: why the state is `failed`, where the log does not say it.
        log_start: bytes of `job.log` that earlier calls wrote.
        stopping: whether the job is being stopped for a DELETE; not stored.
    """

    request: JobRequest
    name: str
    number: int
    state: str = QUEUED
    submitted: str = ""
    started: str = ""
    ended: str = ""
    exit_code: int | None = None
    reason: str = ""
    log_start: int = 0
    stopping: bool = field(default=False, compare=False)

    def write(self, folder: Path) -> None:
        """Write `job.json` into the service's folder."""
        fields = {key: value for key, value in dataclasses.asdict(self).items() if key != "stopping"}
        write_json(folder / self.name / JOB_FILE, {"format": FORMAT, **fields})

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Read `job.json`.

        Raises:
            UserError: it is broken, or of another version.
        """
        try:
            fields: JsonObject = json.loads(path.read_text(encoding="utf-8"))
            version = fields.pop("format")
            job = cls(**{**fields, "request": JobRequest(**fields["request"])})
            if version != FORMAT or job.state not in STATES or not isinstance(job.number, int):
                raise ValueError(f"format {version}, state {job.state}, number {job.number}")
            if job.request.command not in COMMANDS or job.name != path.parent.name or not NAME.fullmatch(job.name):
                raise ValueError(f"command {job.request.command}, name {job.name}")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}: {error}). Move it away: the answers beside it are "
                "intact, and a job of that name goes on with them."
            ) from None
        return job


def now() -> str:
    """The local time, as run.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def read_jobs(folder: Path) -> dict[str, Job]:
    """Read all jobs of a service's folder, in the order of their numbers; those that ran when it ended are queued.

    Raises:
        UserError: a `job.json` is broken.
    """
    jobs = sorted((Job.read(path) for path in folder.glob(f"*/{JOB_FILE}")), key=lambda job: job.number)
    for job in jobs:
        if job.state == RUNNING:
            job.state = QUEUED
    return {job.name: job for job in jobs}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the service's folder.

    Raises:
        UserError: another service holds it, or it cannot be made.
    """
    make_folder(folder)
    descriptor = os.open(folder / SERVICE_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"Another `rlfr-eval serve` works in {folder}. Send your jobs to it, or take another --out."
            ) from None
        yield
    finally:
        os.close(descriptor)
