"""The examination when several processes run: rank 0 leads and concludes, the others follow."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_vlm.doctor import agreement, shared_folder
from rlfr_vlm.doctor.checks import FAIL, Check, as_rows
from rlfr_vlm.doctor.collective import check_trial, run_trial
from rlfr_vlm.doctor.meeting import Meeting, open_meeting
from rlfr_vlm.doctor.network import check_meeting_place
from rlfr_vlm.doctor.place import Place
from rlfr_vlm.doctor.versions import all_versions

LOOK_SECONDS = 120.0  # for a machine's own checks: importing torchvision from a slow disk, a driver that wakes
ANSWER_SECONDS = 10.0

Look = Callable[[], list[Check]]


@dataclass
class Examination:
    """What a rank knows at the end.

    Attributes:
        checks: rank 0: everything; other ranks: nothing.
        meeting: to let the others go; None when it could not be opened.
        hangs: a collective never came back, so the process must be ended the hard way.
    """

    checks: list[Check] = field(default_factory=list)
    meeting: Meeting | None = None
    hangs: bool = False


def lead(place: Place, look: Look, shared: Path | None, timeout: float) -> Examination:
    """Rank 0: gather all reports, start the trials, conclude.

    Args:
        place: rank 0's.
        look: the checks of this machine.
        shared: the folder to test, if any.
        timeout: seconds to wait for the other ranks, at each step.
    """
    meeting_place = check_meeting_place(place)  # before we listen there ourselves
    if any(check.status == FAIL for check in meeting_place):
        return Examination([*look(), *meeting_place])
    meeting = open_meeting(place, timeout)
    done = Examination([], meeting)
    meeting.post("host", place.host)
    hosts: dict[int, str] = meeting.collect("host", timeout)
    arrivals = agreement.check_arrivals(hosts, place, timeout)
    complete = len(hosts) == place.world
    meeting.tell("complete", complete)
    own = look()
    done.checks = [*own, *meeting_place, *arrivals]
    if not complete:
        return done
    meeting.post("report", _report(place, own))
    reports = meeting.collect("report", timeout + LOOK_SECONDS)
    done.checks += agreement.merge_checks(reports, place.host)
    done.checks += agreement.check_versions_agree(reports)
    silent = agreement.check_silence(reports, hosts, "the checks of its machine")
    backend, unequal = agreement.choose_backend(reports)
    done.checks += silent + unequal
    plan = {"backend": backend, "token": shared_folder.new_token() if shared else ""}
    meeting.tell("plan", None if silent else plan)
    if silent:
        return done
    if shared:
        shared_folder.take_part(meeting, shared, plan["token"], timeout)
        answers = meeting.collect("shared/seen", timeout)
        done.checks += shared_folder.check_answers(answers, hosts, shared)
    trial, done.hangs = run_trial(meeting.store, place, backend, timeout)
    meeting.post("trial", trial)
    done.checks += check_trial(meeting.collect("trial", timeout + ANSWER_SECONDS), hosts, backend)
    return done


def follow(place: Place, look: Look, shared: Path | None, timeout: float) -> tuple[int, bool]:
    """Another rank: do what rank 0 says.

    Returns:
        The exit code of all, and whether a collective never came back.

    Raises:
        UserError: rank 0 cannot be reached or is gone.
    """
    meeting = open_meeting(place, timeout)
    meeting.post("host", place.host)
    hangs = False
    patience = 2 * timeout + LOOK_SECONDS
    # Rank 0 may come up to `timeout` after this rank and then waits that long for the others.
    if meeting.hear("complete", 2 * timeout + ANSWER_SECONDS):
        meeting.post("report", _report(place, look()))
        plan = meeting.hear("plan", patience)
        if plan:
            if plan["token"]:
                shared_folder.take_part(meeting, shared, plan["token"], timeout)
            trial, hangs = run_trial(meeting.store, place, plan["backend"], timeout)
            meeting.post("trial", trial)
    return meeting.leave(patience), hangs


def end_process(code: int) -> None:
    """End a process in which a thread hangs inside a collective: leaving Python would wait for it, or crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _report(place: Place, checks: list[Check]) -> dict[str, Any]:
    import torch

    return {
        "host": place.host, "local_rank": place.local_rank, "gpus": torch.cuda.device_count(),
        "versions": all_versions(), "checks": as_rows(checks),
    }  # fmt: skip
