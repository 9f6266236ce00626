"""A trial of torch.distributed: a sum over all ranks, and how fast a large one is."""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rlfr_vlm.doctor.agreement import named
from rlfr_vlm.doctor.checks import Check, fail, ok, warn
from rlfr_vlm.doctor.place import Place

if TYPE_CHECKING:
    from torch.distributed import Store

SMALL, LARGE = 2**20 // 4, 64 * 2**20 // 4  # numbers of 4 bytes: 1 and 64 MB
REPEATS = 3
GRACE_SECONDS = 60.0
SLOW_GB = 1.0
SETTINGS = ("set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME to the network interface that joins the machines, open all "
            "ports between them, and see what NCCL_DEBUG=INFO says")  # fmt: skip


@dataclass
class Trial:
    """How far one rank came.

    Attributes:
        stage: what it did last.
        error: what went wrong; empty when all is well.
        total: the smallest and largest number of the small sum.
        seconds: the fastest large sum.
    """

    stage: str = "forming the group"
    error: str = ""
    total: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0


def run_trial(store: "Store", place: Place, backend: str, timeout: float) -> tuple[dict[str, Any], bool]:
    """Do it in a thread, because a collective that hangs cannot be called back.

    Returns:
        The trial as JSON, and whether the thread still hangs: then only `os._exit` ends the process.
    """
    trial = Trial()
    worker = threading.Thread(target=_work, args=(trial, store, place, backend, timeout), daemon=True)
    worker.start()
    worker.join(timeout)
    result = asdict(trial)
    if worker.is_alive():
        result["error"] = f"not done within {timeout:g} s"
    return result, worker.is_alive()


def _work(trial: Trial, store: "Store", place: Place, backend: str, timeout: float) -> None:
    import torch
    import torch.distributed as dist

    try:
        device = torch.device("cpu")
        if backend == "nccl":
            device = torch.device("cuda", place.local_rank)
            torch.cuda.set_device(device)
        # nccl's watchdog would end the process at its time-out, and nobody would learn why, so ours comes first. gloo
        # raises, and while it forms the group it holds Python's lock (torch 2.13), so only its own time-out works.
        patience = timeout + (GRACE_SECONDS if backend == "nccl" else 0)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world,
                                timeout=timedelta(seconds=patience))  # fmt: skip
        trial.stage = "a sum of 1 MB"
        tensor = torch.full((SMALL,), float(place.rank + 1), device=device)
        dist.all_reduce(tensor)
        trial.total = (float(tensor.min()), float(tensor.max()))
        trial.stage = "a sum of 64 MB"
        tensor = torch.ones(LARGE, device=device)
        trial.seconds = min(_timed(dist, torch, tensor) for _ in range(REPEATS))
        trial.stage = "leaving the group"
        dist.destroy_process_group()
        trial.stage = "done"
    except Exception as error:  # whatever a backend raises is the finding
        trial.error = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _timed(dist: Any, torch: Any, tensor: Any) -> float:
    """Seconds of one all-reduce of `tensor` that all ranks begin together."""
    dist.barrier()
    start = time.perf_counter()
    dist.all_reduce(tensor)
    if tensor.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def check_trial(trials: Mapping[int, Mapping[str, Any]], hosts: Mapping[int, str], backend: str) -> list[Check]:
    """What the trials say together.

    Args:
        trials: rank -> trial; a rank that did not answer is absent.
        hosts: rank -> host.
        backend: nccl or gloo.
    """
    topic, world = f"{backend} all-reduce", len(hosts)
    silent = [rank for rank in hosts if rank not in trials]
    if silent:
        return [fail(topic, f"{named(silent, hosts)} died or hangs in it", f"look at the output there; {SETTINGS}")]
    broken = {rank: trial for rank, trial in trials.items() if trial["error"]}
    if broken:
        told = "; ".join(f"rank {rank} on {hosts[rank]} at {trial['stage']}: {trial['error']}"
                         for rank, trial in broken.items())  # fmt: skip
        return [fail(topic, told, SETTINGS)]
    right = world * (world + 1) / 2
    wrong = {rank: trial["total"] for rank, trial in trials.items() if set(trial["total"]) != {right}}
    if wrong:
        return [fail(topic, f"{named(list(wrong), hosts)} got {sorted(set(map(tuple, wrong.values())))}, the sum is "
                     f"{right:g}", "test the GPUs and links of that machine; try NCCL_P2P_DISABLE=1")]  # fmt: skip
    seconds = max(trial["seconds"] for trial in trials.values())
    # What each rank sends and receives in a ring, so that the number can be held against the speed of a link.
    speed = 2 * (world - 1) / world * LARGE * 4 / seconds / 1e9
    found = (
        f"sum of 1 MB over {world} ranks is right ({right:g}); 64 MB takes {seconds:.4f} s, {speed:.2f} GB/s a link"
    )
    if backend == "nccl" and speed < SLOW_GB:
        return [warn(topic, f"{found}; this will slow training down", SETTINGS)]
    return [ok(topic, found)]
