"""Protocol of `rlfr doctor` on several ranks. Rank 0 collects all reports, starts the tests across ranks and judges.

Ranks exchange JSON through torch's key-value store, which works before any collective. Rank 0 polls the store, so it
can name the ranks that are missing. `torch.distributed.monitored_barrier` cannot: it needs a process group, and
forming that times out without naming anyone when a rank never starts.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.doctor.checks import FAIL, Check, as_rows, first_line
from rlfr_vlm.doctor.network import (
    check_master_address,
    check_shared_folder,
    connection_problem,
    exchange_files,
    new_token,
)
from rlfr_vlm.doctor.rank_checks import (
    RankReport,
    check_all_reduce,
    check_arrivals,
    check_silent_ranks,
    check_versions_agree,
    choose_backend,
    merge_machine_checks,
    run_all_reduce,
)
from rlfr_vlm.doctor.versions import all_versions
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store

CHECKS_SECONDS = 120.0  # for a machine's own checks: importing torchvision from a slow disk, loading the GPU driver
ANSWER_SECONDS = 10.0
POLL_SECONDS = 0.1
LEAVE_SECONDS = 5.0


# This process among the ranks


@dataclass(frozen=True)
class RankInfo:
    """This process according to the variables that torchrun and accelerate set.

    Attributes:
        rank: from 0.
        world_size: number of processes.
        local_rank: rank on its machine, from 0.
        local_world_size: number of processes on its machine.
        host: name of its machine.
        master_addr: MASTER_ADDR, or an empty string.
        master_port: MASTER_PORT, or 0.
        launcher_listens: the launcher holds the port instead of rank 0 (torchrun's default).
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    host: str
    master_addr: str
    master_port: int
    launcher_listens: bool

    @property
    def several_ranks(self) -> bool:
        """Whether there is more than one rank."""
        return self.world_size > 1

    @property
    def several_machines(self) -> bool:
        """Whether some ranks run on another machine."""
        return self.world_size > self.local_world_size


def read_rank_info() -> RankInfo:
    """Read this process's rank from the environment.

    Raises:
        UserError: a variable has an impossible value, or one that is needed is not set.
    """
    world_size = _read_number("WORLD_SIZE", 1, 1)
    rank = _read_number("RANK", 0, 0)
    if rank >= world_size:
        raise UserError(f"RANK is {rank} and WORLD_SIZE is {world_size}; ranks run from 0 to WORLD_SIZE - 1.")
    port = _read_number("MASTER_PORT", 0, 0)
    if port > 65535:
        raise UserError(f"MASTER_PORT is {port}; ports run from 1 to 65535.")
    if world_size > 1:
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
        if missing:
            raise UserError(
                f"WORLD_SIZE is {world_size}, but these are not set: {', '.join(missing)}. Start the processes with "
                "torchrun or `accelerate launch -m rlfr_vlm.cli doctor`, which set them, or set them by hand."
            )
    return RankInfo(
        rank=rank,
        world_size=world_size,
        local_rank=_read_number("LOCAL_RANK", 0, 0),
        # If no launcher sets LOCAL_WORLD_SIZE, the other ranks may be on any machine.
        local_world_size=min(_read_number("LOCAL_WORLD_SIZE", 1, 1), world_size),
        host=socket.gethostname(),
        master_addr=os.environ.get("MASTER_ADDR", ""),
        master_port=port,
        launcher_listens=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _read_number(name: str, default: int, minimum: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < minimum:
        raise UserError(f"{name} is {text!r}; it is a whole number, {minimum} or more.")
    return int(text)


# Store


class RankStore:
    """torch's key-value store with JSON values, as one rank uses it."""

    def __init__(self, store: "Store", info: RankInfo) -> None:
        self.store, self.info = store, info

    def post(self, topic: str, value: object) -> None:
        """Post this rank's value for `topic`."""
        self.store.set(f"{topic}/{self.info.rank}", json.dumps(value))

    def collect(self, topic: str, seconds: float, ranks: Iterable[int] | None = None) -> dict[int, Any]:
        """Return rank -> posted value, of all ranks or of `ranks`; without those that post nothing in `seconds`."""
        waiting = list(range(self.info.world_size) if ranks is None else ranks)
        values: dict[int, Any] = {}
        deadline = time.monotonic() + seconds
        while True:
            for rank in [rank for rank in waiting if self.store.check([f"{topic}/{rank}"])]:
                values[rank] = json.loads(self.store.get(f"{topic}/{rank}"))
                waiting.remove(rank)
            if not waiting or time.monotonic() >= deadline:
                return dict(sorted(values.items()))
            time.sleep(POLL_SECONDS)

    def broadcast(self, topic: str, value: object) -> None:
        """Publish rank 0's value for `topic` to all ranks."""
        self.store.set(topic, json.dumps(value))

    def receive(self, topic: str, seconds: float) -> Any:
        """Wait for rank 0's value for `topic`.

        Raises:
            UserError: rank 0 published nothing within `seconds`, or the store is gone.
        """
        deadline = time.monotonic() + seconds
        this_rank = f"rank {self.info.rank} on {self.info.host}"
        try:
            while not self.store.check([topic]):
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"{this_rank} waited {seconds:g} s for rank 0, which never arrived or fell silent. Look at "
                        "rank 0's output, and raise --timeout if it starts slowly."
                    )
                time.sleep(POLL_SECONDS)
            return json.loads(self.store.get(topic))
        except RuntimeError as error:  # torch.distributed.DistNetworkError is one
            raise UserError(f"{this_rank} lost rank 0 ({first_line(error)}). Look at rank 0's output.") from None

    def release_ranks(self, code: int) -> None:
        """On rank 0: publish the exit code and wait for the other ranks, since this process may serve the store."""
        self.broadcast("end", code)
        self.collect("left", LEAVE_SECONDS, range(1, self.info.world_size))

    def wait_for_exit_code(self, seconds: float) -> int:
        """On other ranks: wait for rank 0's exit code, which is that of all ranks."""
        code = int(self.receive("end", seconds))
        self.post("left", True)
        return code


def open_store(info: RankInfo, timeout: float) -> RankStore:
    """Open the store on rank 0, connect to it on other ranks.

    Raises:
        UserError: rank 0's port does not answer within `timeout` seconds, or another server answers there.
    """
    from torch.distributed import PrefixStore, TCPStore

    listens = info.rank == 0 and not info.launcher_listens
    address = f"{info.master_addr}:{info.master_port}"
    this_rank = f"rank {info.rank} on {info.host}"
    if not listens and (problem := connection_problem(info.master_addr, info.master_port, timeout)):
        raise UserError(
            f"{this_rank} cannot reach rank 0 at {address} within {timeout:g} s: {problem}. Start rank 0, check "
            "MASTER_ADDR and MASTER_PORT, and open that port in the firewall of rank 0's machine."
        )

    def make_store() -> "Store":
        return TCPStore(
            info.master_addr,
            info.master_port,
            None,
            listens,
            timedelta(seconds=timeout),
            wait_for_workers=False,
            multi_tenant=listens,
        )

    store, problem = _make_in_time(make_store, timeout)
    if store is None and listens:
        raise UserError(f"{this_rank} cannot listen at {address}: {problem}. Set another MASTER_PORT on all machines.")
    if store is None:
        raise UserError(
            f"{this_rank}: what answers at {address} is not rank 0's store: {problem}. Set another MASTER_PORT on all "
            "machines."
        )
    return RankStore(PrefixStore("rlfr-doctor", store), info)


def _make_in_time(make_store: Callable[[], "Store"], seconds: float) -> "tuple[Store | None, str]":
    """Return the store, or None and the reason.

    Runs in a thread: torch 2.13's client waits without limit for a server that is not a TCPStore.
    """
    stores: list[Store] = []
    problems: list[str] = []

    def work() -> None:
        try:
            stores.append(make_store())
        except RuntimeError as error:
            problems.append(first_line(error))

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(seconds + 1)
    if stores:
        return stores[0], ""
    return None, problems[0] if problems else f"no greeting within {seconds:g} s"


# Protocol


@dataclass
class RankZeroResult:
    """State of rank 0 when the checks have ended.

    Attributes:
        checks: of all machines and ranks.
        store: for releasing the other ranks; None if it could not be opened.
        hangs: whether a collective never returned, so that the process must be ended with `end_process`.
    """

    checks: list[Check] = field(default_factory=list)
    store: RankStore | None = None
    hangs: bool = False


def run_rank_zero(
    info: RankInfo, run_checks: Callable[[], list[Check]], shared: Path | None, timeout: float
) -> RankZeroResult:
    """On rank 0: collect all reports, start the tests across ranks, judge them.

    Args:
        info: of rank 0.
        run_checks: runs the checks of this machine.
        shared: the folder to test, if any.
        timeout: seconds to wait for the other ranks, at each step.
    """
    address_checks = check_master_address(info)  # before this process listens on the port
    if any(check.status == FAIL for check in address_checks):
        return RankZeroResult([*run_checks(), *address_checks])
    store = open_store(info, timeout)
    result = RankZeroResult([], store)
    store.post("host", info.host)
    hosts: dict[int, str] = store.collect("host", timeout)
    arrivals = check_arrivals(hosts, info, timeout)
    complete = len(hosts) == info.world_size
    store.broadcast("complete", complete)
    machine_checks = run_checks()
    result.checks = [*machine_checks, *address_checks, *arrivals]
    if not complete:
        return result
    store.post("report", _report(info, machine_checks))
    reports: dict[int, RankReport] = store.collect("report", timeout + CHECKS_SECONDS)
    result.checks += merge_machine_checks(reports, info.host)
    result.checks += check_versions_agree(reports)
    silent = check_silent_ranks(reports, hosts, "the checks of its machine")
    backend, backend_checks = choose_backend(reports)
    result.checks += silent + backend_checks
    token = new_token() if shared else ""
    store.broadcast("plan", None if silent else {"backend": backend, "token": token})
    if silent:
        return result
    if shared:
        exchange_files(store, shared, token, timeout)
        result.checks += check_shared_folder(store.collect("shared/seen", timeout), hosts, shared)
    all_reduce, result.hangs = run_all_reduce(store.store, info, backend, timeout)
    store.post("trial", all_reduce)
    result.checks += check_all_reduce(store.collect("trial", timeout + ANSWER_SECONDS), hosts, backend)
    return result


def run_other_rank(
    info: RankInfo, run_checks: Callable[[], list[Check]], shared: Path | None, timeout: float
) -> tuple[int, bool]:
    """On the other ranks: take part in the tests that rank 0 starts. The arguments are those of `run_rank_zero`.

    Returns:
        The exit code of all ranks, and whether a collective never returned.

    Raises:
        UserError: rank 0 cannot be reached or is gone.
    """
    store = open_store(info, timeout)
    store.post("host", info.host)
    hangs = False
    patience = 2 * timeout + CHECKS_SECONDS
    # Rank 0 may arrive up to `timeout` after this rank and then waits that long for the others.
    if store.receive("complete", 2 * timeout + ANSWER_SECONDS):
        store.post("report", _report(info, run_checks()))
        plan = store.receive("plan", patience)
        if plan:
            if plan["token"]:
                exchange_files(store, shared, plan["token"], timeout)
            all_reduce, hangs = run_all_reduce(store.store, info, plan["backend"], timeout)
            store.post("trial", all_reduce)
    return store.wait_for_exit_code(patience), hangs


def end_process(code: int) -> None:
    """End a process in which a collective hangs in a thread: a normal exit would wait for the thread, or crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _report(info: RankInfo, checks: list[Check]) -> RankReport:
    import torch

    return {
        "host": info.host,
        "local_rank": info.local_rank,
        "gpus": torch.cuda.device_count(),
        "versions": all_versions(),
        "checks": as_rows(checks),
    }
