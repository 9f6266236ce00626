"""A folder that all machines must share: each rank writes a file, and all must see all of them."""

import contextlib
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlfr_vlm.doctor.agreement import named
from rlfr_vlm.doctor.checks import Check, fail, ok
from rlfr_vlm.doctor.meeting import Meeting

TOPIC = "shared folder"
LOOK_SECONDS = 10.0  # network file systems show a new file with a delay
REMEDY = "mount the same disk at this path on every machine, or name a folder that is shared"


def new_token() -> str:
    """A name that no other run uses."""
    return uuid.uuid4().hex[:12]


def check_alone(folder: Path) -> Check:
    """One process can only say whether the folder can be written to."""
    path = _file(folder, new_token(), 0)
    problem = _write(path)
    _remove(path)
    if problem:
        return fail(
            TOPIC, f"{folder} cannot be written to: {problem}", "make the folder, or name one that is writable"
        )
    return ok(TOPIC, f"{folder} can be written to; start doctor on every machine to see whether it is shared")


def take_part(meeting: Meeting, folder: Path | None, token: str, seconds: float) -> dict[str, Any]:
    """Write, wait for all, look, wait for all, remove.

    Returns:
        `problem`, why this rank could not write, and `unseen`, the ranks whose files it does not see.
    """
    if folder is None:
        answer: dict[str, Any] = {"problem": "started without --shared", "unseen": []}
        meeting.post("shared/written", True)
        meeting.post("shared/seen", answer)
        return answer
    path = _file(folder, token, meeting.place.rank)
    answer = {"problem": _write(path), "unseen": []}
    try:
        meeting.post("shared/written", True)
        _wait(meeting, "written", seconds)
        answer["unseen"] = _unseen(folder, token, meeting.place.world, min(LOOK_SECONDS, seconds))
        meeting.post("shared/seen", answer)
        _wait(meeting, "seen", seconds)
    finally:
        _remove(path)
    return answer


def check_answers(answers: Mapping[int, Mapping[str, Any]], hosts: Mapping[int, str], folder: Path) -> list[Check]:
    """What rank 0 concludes; a file that could not be written is missed nowhere."""
    checks = []
    for rank, host in hosts.items():
        answer = answers.get(rank)
        if answer is None:
            checks.append(fail(TOPIC, f"rank {rank} on {host} fell silent", f"see whether {folder} hangs there"))
        elif answer["problem"]:
            checks.append(fail(TOPIC, f"rank {rank} on {host} cannot write to {folder}: {answer['problem']}", REMEDY))
        unseen = [r for r in (answer or {}).get("unseen", []) if r in answers and not answers[r]["problem"]]
        if unseen and answer is not None and not answer["problem"]:
            checks.append(fail(TOPIC, f"rank {rank} on {host} does not see what {named(unseen, hosts)} wrote into "
                               f"{folder}", REMEDY))  # fmt: skip
    return checks or [ok(TOPIC, f"all {len(hosts)} ranks see each other's files in {folder}")]


def _wait(meeting: Meeting, step: str, seconds: float) -> None:
    """Wait until every rank, or all that still live, did `step`."""
    if meeting.place.rank == 0:
        meeting.collect(f"shared/{step}", seconds)
        meeting.tell(f"shared/all-{step}", True)
    else:
        meeting.hear(f"shared/all-{step}", 2 * seconds + LOOK_SECONDS)


def _unseen(folder: Path, token: str, world: int, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            names = {path.name for path in folder.iterdir()}  # listing also renews what a network disk remembers
        except OSError:
            names = set()
        unseen = [rank for rank in range(world) if _file(folder, token, rank).name not in names]
        if not unseen or time.monotonic() >= deadline:
            return unseen
        time.sleep(0.5)


def _file(folder: Path, token: str, rank: int) -> Path:
    return folder / f".rlfr-doctor-{token}-{rank}"


def _write(path: Path) -> str:
    try:
        path.write_text(path.name, encoding="utf-8")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # the folder is gone or was never one; that is reported already
        path.unlink(missing_ok=True)
