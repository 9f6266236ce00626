"""Checks across ranks: who is missing, whose versions differ, whether an all-reduce works and how fast it is."""

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict

from rlfr_vlm.doctor.checks import OK, Check, fail, first_line, ok, warn
from rlfr_vlm.doctor.network import describe_ranks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store

    from rlfr_vlm.doctor.ranks import RankInfo

SMALL, LARGE = 2**20 // 4, 64 * 2**20 // 4  # elements of 4 bytes: 1 and 64 MB
REPEATS = 3
NCCL_EXTRA_SECONDS = 60.0
SLOW_GB = 1.0  # GB/s on a link
NETWORK_REMEDY = (
    "set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME to the network interface that joins the machines, open all ports "
    "between them, and see what NCCL_DEBUG=INFO says"
)


# Agreement of the ranks


class RankReport(TypedDict):
    """Report of one rank. The checks of a machine are in the report of its local rank 0."""

    host: str
    local_rank: int
    gpus: int
    versions: dict[str, str]
    checks: list[dict[str, str]]


def check_arrivals(hosts: Mapping[int, str], info: "RankInfo", seconds: float) -> list[Check]:
    """Check that all ranks arrived: one line, or a line for each missing rank.

    Args:
        hosts: rank -> host of the ranks that arrived.
        info: of rank 0.
        seconds: how long rank 0 waited.
    """
    arrived = describe_ranks(hosts, hosts)
    missing = [rank for rank in range(info.world_size) if rank not in hosts]
    if not missing:
        return [ok("ranks", f"all {info.world_size} arrived: {arrived}")]
    return [
        fail(
            "ranks",
            f"rank {rank} of {info.world_size} ({_likely_host(rank, hosts, info)}) never arrived within "
            f"{seconds:g} s; arrived: {arrived}",
            f"look at the output of rank {rank}; start it with MASTER_ADDR={info.master_addr} "
            f"MASTER_PORT={info.master_port} and open that port in the firewall of {info.host}; raise --timeout if it "
            "starts slowly",
        )
        for rank in missing
    ]


def check_silent_ranks(reports: Mapping[int, RankReport], hosts: Mapping[int, str], during: str) -> list[Check]:
    """Return a failed check for each rank that arrived and posted no report."""
    return [
        fail(
            "ranks",
            f"rank {rank} on {host} arrived, then fell silent during {during}",
            f"look at the output of rank {rank} on {host}: it has died or hangs",
        )
        for rank, host in hosts.items()
        if rank not in reports
    ]


def check_versions_agree(reports: Mapping[int, RankReport]) -> list[Check]:
    """Check that versions are equal; report ranks that differ from the majority (ties: from rank 0)."""
    hosts = {rank: report["host"] for rank, report in reports.items()}
    remedy = (
        "make the environments equal: the same checkout, and `bash scripts/setup.sh` with the same --extras on each "
        "machine, or one environment on a shared disk"
    )
    checks = []
    for name in sorted({name for report in reports.values() for name in report["versions"]}):
        versions = {rank: report["versions"].get(name, "none") for rank, report in reports.items()}
        counts = Counter(versions.values())
        first = versions[min(versions)]
        majority = max(counts, key=lambda version: (counts[version], version == first))
        majority_ranks = describe_ranks([rank for rank in versions if versions[rank] == majority], hosts)
        for version in sorted(counts.keys() - {majority}):
            ranks = describe_ranks([rank for rank in versions if versions[rank] == version], hosts)
            checks.append(fail(f"same {name}", f"{ranks} has {version}, {majority_ranks} has {majority}", remedy))
    count = len(reports[min(reports)]["versions"])
    text = f"{count} versions, rlfr_vlm's sources among them, are equal on all {len(reports)} ranks"
    return checks or [ok("same versions", text)]


def choose_backend(reports: Mapping[int, RankReport]) -> tuple[str, list[Check]]:
    """Return nccl if every rank has its own GPU, else gloo, with a failed check if only some ranks have one."""
    hosts = {rank: report["host"] for rank, report in reports.items()}
    without = [rank for rank, report in reports.items() if report["local_rank"] >= report["gpus"]]
    if not without:
        return "nccl", []
    if not any(report["gpus"] for report in reports.values()):
        return "gloo", []
    details = ", ".join(
        f"rank {rank}: LOCAL_RANK {reports[rank]['local_rank']} of {reports[rank]['gpus']} GPUs" for rank in without
    )
    check = fail(
        "a GPU for each rank",
        f"{describe_ranks(without, hosts)} has none ({details})",
        "start no more processes than GPUs on a machine, and see what `rlfr doctor` says there",
    )
    return "gloo", [check]


def merge_machine_checks(reports: Mapping[int, RankReport], host: str) -> list[Check]:
    """Return the checks of other machines that are not ok, equal ones merged into one line.

    Args:
        reports: rank -> report.
        host: rank 0's machine, whose checks are listed separately.
    """
    rank_zero_checks = {Check(**row) for row in reports[0]["checks"]}
    locations: dict[Check, list[str]] = {}
    for rank, report in reports.items():
        for row in report["checks"] if rank else ():
            check = Check(**row)
            if check.status != OK and not (check in rank_zero_checks and report["host"] == host):
                locations.setdefault(check, []).append(f"rank {rank} on {report['host']}")
    return [check.at(", ".join(ranks)) for check, ranks in locations.items()]


def _likely_host(rank: int, hosts: Mapping[int, str], info: "RankInfo") -> str:
    """Guess a missing rank's host from ranks that arrived: launchers number ranks machine by machine."""
    machine = rank // info.local_world_size
    neighbours = {host for other, host in hosts.items() if other // info.local_world_size == machine}
    return f"on {' or '.join(sorted(neighbours))}" if neighbours else f"machine {machine}, from which none arrived"


# All-reduce


class AllReduceResult(TypedDict):
    """Progress of one rank in the all-reduce test.

    Keys:
        stage: last stage that it began.
        error: error message, or an empty string.
        total: smallest and largest element of the small sum.
        seconds: duration of the fastest large sum.
    """

    stage: str
    error: str
    total: Sequence[float]
    seconds: float


def run_all_reduce(store: "Store", info: "RankInfo", backend: str, timeout: float) -> tuple[AllReduceResult, bool]:
    """Sum tensors over all ranks, in a thread because a hanging collective cannot be cancelled.

    Returns:
        The result, and whether the thread still hangs: then only `os._exit` ends the process.
    """
    result: AllReduceResult = {"stage": "forming the group", "error": "", "total": (0.0, 0.0), "seconds": 0.0}
    worker = threading.Thread(target=_all_reduce, args=(result, store, info, backend, timeout), daemon=True)
    worker.start()
    worker.join(timeout)
    hangs = worker.is_alive()
    final = result.copy()
    if hangs:
        final["error"] = f"not done within {timeout:g} s"
    return final, hangs


def _all_reduce(result: AllReduceResult, store: "Store", info: "RankInfo", backend: str, timeout: float) -> None:
    import torch
    import torch.distributed as dist

    try:
        device = torch.device("cpu")
        if backend == "nccl":
            device = torch.device("cuda", info.local_rank)
            torch.cuda.set_device(device)
        # NCCL's watchdog ends the process at its timeout without a message, so the join above must time out first.
        # gloo raises, and holds the GIL while it forms the group (torch 2.13), so there only its own timeout works.
        group_timeout = timeout + (NCCL_EXTRA_SECONDS if backend == "nccl" else 0)
        dist.init_process_group(
            backend,
            store=store,
            rank=info.rank,
            world_size=info.world_size,
            timeout=timedelta(seconds=group_timeout),
        )
        result["stage"] = "a sum of 1 MB"
        tensor = torch.full((SMALL,), float(info.rank + 1), device=device)
        dist.all_reduce(tensor)
        result["total"] = (float(tensor.min()), float(tensor.max()))
        result["stage"] = "a sum of 64 MB"
        tensor = torch.ones(LARGE, device=device)
        result["seconds"] = min(_time_all_reduce(tensor) for _ in range(REPEATS))
        result["stage"] = "leaving the group"
        dist.destroy_process_group()
        result["stage"] = "done"
    except Exception as error:  # backends raise many exception types
        result["error"] = first_line(error, 300)


def _time_all_reduce(tensor: "Tensor") -> float:
    """Return the seconds of one all-reduce that all ranks begin together."""
    import torch
    import torch.distributed as dist

    dist.barrier()
    start = time.perf_counter()
    dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def check_all_reduce(results: Mapping[int, AllReduceResult], hosts: Mapping[int, str], backend: str) -> list[Check]:
    """Judge the all-reduce test.

    Args:
        results: rank -> result, without ranks that did not answer.
        hosts: rank -> host.
        backend: nccl or gloo.
    """
    topic, world_size = f"{backend} all-reduce", len(hosts)
    silent = [rank for rank in hosts if rank not in results]
    if silent:
        text = f"{describe_ranks(silent, hosts)} died or hangs in it"
        return [fail(topic, text, f"look at the output there; {NETWORK_REMEDY}")]
    failed = {rank: result for rank, result in results.items() if result["error"]}
    if failed:
        text = "; ".join(
            f"rank {rank} on {hosts[rank]} at {result['stage']}: {result['error']}" for rank, result in failed.items()
        )
        return [fail(topic, text, NETWORK_REMEDY)]
    expected = world_size * (world_size + 1) / 2
    wrong = {rank: tuple(result["total"]) for rank, result in results.items() if set(result["total"]) != {expected}}
    if wrong:
        text = f"{describe_ranks(list(wrong), hosts)} got {sorted(set(wrong.values()))}, the sum is {expected:g}"
        return [fail(topic, text, "test the GPUs and links of that machine; try NCCL_P2P_DISABLE=1")]
    seconds = max(result["seconds"] for result in results.values())
    # Bytes that each rank sends and receives in a ring all-reduce, comparable with the speed of a link.
    speed = 2 * (world_size - 1) / world_size * LARGE * 4 / seconds / 1e9
    small = f"sum of 1 MB over {world_size} ranks is right ({expected:g})"
    text = f"{small}; 64 MB takes {seconds:.4f} s, {speed:.2f} GB/s a link"
    if backend == "nccl" and speed < SLOW_GB:
        return [warn(topic, f"{text}; this will slow training down", NETWORK_REMEDY)]
    return [ok(topic, text)]
