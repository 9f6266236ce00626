"""Checks of host names, ports, the address where ranks meet, and a folder that all machines share."""

import contextlib
import errno
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from rlfr_vlm.doctor.checks import Check, fail, ok, warn

if TYPE_CHECKING:
    from rlfr_vlm.doctor.ranks import RankInfo, RankStore

CONNECT_SECONDS = 5.0
SHARED_FOLDER = "shared folder"
VISIBLE_SECONDS = 10.0  # network file systems show a new file with a delay
SHARED_REMEDY = "mount the same disk at this path on every machine, or name a folder that is shared"


# Names and ports


def check_host_name(info: "RankInfo") -> Check:
    """Check that this machine's name has an address. gloo and vLLM look it up to choose a network interface."""
    address, problem = resolve(info.host)
    remedy = f"add {info.host} to /etc/hosts, or set GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME and VLLM_HOST_IP"
    if problem:
        status = fail if info.several_machines else warn
        return status("host name", f"{info.host} does not resolve: {problem}", remedy)
    if info.several_machines and address.startswith("127."):
        return warn("host name", f"{info.host} resolves to {address}, which other machines cannot reach", remedy)
    return ok("host name", f"{info.host} resolves to {address}")


def resolve(name: str) -> tuple[str, str]:
    """Return the address of a host name, or an empty string, and the problem, or an empty string."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0]), ""
    except OSError as error:
        return "", error.strerror or str(error)
    except UnicodeError:
        return "", "it is not a host name"


def check_port(port: int, topic: str = "port", remedy: str = "end that process or choose another port") -> Check:
    """Check that a server can listen on `port` of this machine."""
    problem = port_problem(port)
    return fail(f"{topic} {port}", problem, remedy) if problem else ok(f"{topic} {port}", "free")


def port_problem(port: int) -> str:
    """Return why no server can listen on `port`, or an empty string if one can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        # Servers set this too: without it a connection closed a moment ago would block the port.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
            server.listen()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"in use by {port_holder(port)}"
            return f"cannot be used: {error.strerror}"
    return ""


def port_holder(port: int) -> str:
    """Return name and id of the process that listens on `port`, without its arguments, which may hold keys."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="inet"):
            matches = connection.laddr and connection.laddr.port == port
            if matches and connection.status == psutil.CONN_LISTEN and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return "a process that this user may not see"


def check_master_address(info: "RankInfo") -> list[Check]:
    """Check MASTER_ADDR and MASTER_PORT, if set: the name resolves, the port is free on rank 0 or reachable elsewhere.

    Call it before rank 0 listens. With several ranks, connecting to the store tests the port on the other ranks.
    """
    if not info.master_addr and not info.master_port:
        return []
    checks = []
    if info.master_addr:
        address, problem = resolve(info.master_addr)
        if problem:
            remedy = "set it to rank 0's host name or address, the same on all machines"
            return [fail("MASTER_ADDR", f"{info.master_addr} does not resolve: {problem}", remedy)]
        checks.append(_check_address(info, address))
    if not info.master_port:
        return checks
    if info.launcher_listens:
        return [*checks, ok("MASTER_PORT", f"{info.master_port}, held by the launcher")]
    if info.rank == 0:
        remedy = "end that process or set another MASTER_PORT on all machines"
        return [*checks, check_port(info.master_port, "MASTER_PORT", remedy)]
    if info.master_addr and not info.several_ranks:
        target = f"{info.master_addr}:{info.master_port}"
        problem = connection_problem(info.master_addr, info.master_port, CONNECT_SECONDS)
        if problem:
            remedy = "start rank 0 and open the port in its firewall"
            checks.append(fail("MASTER_PORT", f"{target} does not answer: {problem}", remedy))
        else:
            checks.append(ok("MASTER_PORT", f"{target} answers"))
    return checks


def connection_problem(host: str, port: int, seconds: float) -> str:
    """Try to connect until it succeeds or `seconds` have passed. Returns the last problem, or an empty string."""
    deadline = time.monotonic() + seconds
    while True:
        remaining = deadline - time.monotonic()
        try:
            with socket.create_connection((host, port), timeout=max(0.1, remaining)):
                return ""
        except OSError as error:
            problem = error.strerror or str(error)
        if time.monotonic() + 0.2 >= deadline:
            return problem
        time.sleep(0.2)


def _check_address(info: "RankInfo", address: str) -> Check:
    result = f"{info.master_addr} resolves to {address}"
    if info.several_machines and address.startswith("127."):
        remedy = "set it to rank 0's host name or address, unless all ranks run here"
        return warn("MASTER_ADDR", f"{result}, which other machines cannot reach", remedy)
    if info.rank == 0 and not info.launcher_listens and not _is_local_address(address):
        result = f"{result}, which is not an address of {info.host}, where rank 0 runs"
        remedy = "set it to an address of rank 0's machine, unless it is forwarded there"
        return warn("MASTER_ADDR", result, remedy)
    return ok("MASTER_ADDR", result)


def _is_local_address(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


# Shared folder


class SharedFolderResult(TypedDict):
    """Result of one rank in a test of the shared folder.

    Keys:
        problem: why the rank could not write its file, or an empty string.
        unseen: ranks whose files it does not see.
    """

    problem: str
    unseen: list[int]


def new_token() -> str:
    """Return a part of a file name that no other run uses."""
    return uuid.uuid4().hex[:12]


def check_folder_writable(folder: Path) -> Check:
    """Check that a single process can write to the folder."""
    path = _rank_file(folder, new_token(), 0)
    problem = _write(path)
    _remove(path)
    if problem:
        remedy = "make the folder, or name one that is writable"
        return fail(SHARED_FOLDER, f"{folder} cannot be written to: {problem}", remedy)
    return ok(SHARED_FOLDER, f"{folder} can be written to; start doctor on every machine to see whether it is shared")


def exchange_files(store: "RankStore", folder: Path | None, token: str, seconds: float) -> SharedFolderResult:
    """Write a file, wait for all ranks, look for their files, wait for all ranks, remove the file.

    Posts the result to rank 0. `folder` is None on a rank that was started without --shared.
    """
    if folder is None:
        result: SharedFolderResult = {"problem": "started without --shared", "unseen": []}
        store.post("shared/written", True)
        store.post("shared/seen", result)
        return result
    path = _rank_file(folder, token, store.info.rank)
    result = {"problem": _write(path), "unseen": []}
    try:
        store.post("shared/written", True)
        _wait_for_all(store, "written", seconds)
        result["unseen"] = _unseen_ranks(folder, token, store.info.world_size, min(VISIBLE_SECONDS, seconds))
        store.post("shared/seen", result)
        _wait_for_all(store, "seen", seconds)
    finally:
        _remove(path)
    return result


def check_shared_folder(
    results: Mapping[int, SharedFolderResult], hosts: Mapping[int, str], folder: Path
) -> list[Check]:
    """Judge the results of all ranks. A rank that could not write is not also reported as missing elsewhere."""
    checks = []
    for rank, host in hosts.items():
        result = results.get(rank)
        if result is None:
            checks.append(
                fail(SHARED_FOLDER, f"rank {rank} on {host} fell silent", f"see whether {folder} hangs there")
            )
            continue
        if result["problem"]:
            text = f"rank {rank} on {host} cannot write to {folder}: {result['problem']}"
            checks.append(fail(SHARED_FOLDER, text, SHARED_REMEDY))
            continue
        unseen = [other for other in result["unseen"] if other in results and not results[other]["problem"]]
        if unseen:
            text = f"rank {rank} on {host} does not see what {describe_ranks(unseen, hosts)} wrote into {folder}"
            checks.append(fail(SHARED_FOLDER, text, SHARED_REMEDY))
    return checks or [ok(SHARED_FOLDER, f"all {len(hosts)} ranks see each other's files in {folder}")]


def describe_ranks(ranks: Sequence[int] | Mapping[int, str], hosts: Mapping[int, str]) -> str:
    """Return ranks with their hosts, such as 'ranks 0, 1 on a; rank 2 on b'."""
    groups: dict[str, list[int]] = {}
    for rank in ranks:
        groups.setdefault(hosts[rank], []).append(rank)
    return "; ".join(
        f"rank{'s' if len(group) > 1 else ''} {', '.join(map(str, group))} on {host}" for host, group in groups.items()
    )


def _wait_for_all(store: "RankStore", step: str, seconds: float) -> None:
    """Wait until every rank has done `step`; rank 0 stops waiting for silent ranks after `seconds`."""
    if store.info.rank == 0:
        store.collect(f"shared/{step}", seconds)
        store.broadcast(f"shared/all-{step}", True)
    else:
        store.receive(f"shared/all-{step}", 2 * seconds + VISIBLE_SECONDS)


def _unseen_ranks(folder: Path, token: str, world_size: int, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            names = {path.name for path in folder.iterdir()}  # listing also refreshes a network disk's cache
        except OSError:
            names = set()
        unseen = [rank for rank in range(world_size) if _rank_file(folder, token, rank).name not in names]
        if not unseen or time.monotonic() >= deadline:
            return unseen
        time.sleep(0.5)


def _rank_file(folder: Path, token: str, rank: int) -> Path:
    return folder / f".rlfr-doctor-{token}-{rank}"


def _write(path: Path) -> str:
    """Write the file. Returns why that failed, or an empty string."""
    try:
        path.write_text(path.name, encoding="utf-8")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # a missing folder was reported by `_write`
        path.unlink(missing_ok=True)
