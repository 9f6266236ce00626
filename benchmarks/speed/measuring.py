"""Shared functions of the speed scripts: machine description, alternating runs, peak memory, tables, JSON."""

import argparse
import json
import os
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlfr_vlm.files import write_json
from rlfr_vlm.provenance import package_versions
from rlfr_vlm.trainer.records.run_record import PACKAGES, git_state, hardware

Result = TypeVar("Result")
QUIET = 0.1  # share of the CPUs that other processes may use without disturbing a measurement
POLL_SECONDS = 3.0  # interval at which the load of other processes is measured while waiting
LOAD_BEFORE = os.getloadavg()[0]  # one-minute load average when the script started


def machine() -> dict[str, object]:
    """Describe how a number was measured: date, processor, devices, versions, commit."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "hardware": hardware(),
        "versions": package_versions(PACKAGES),
        "git": git_state(),
    }


def processor() -> str:
    """Name of the processor; results files are named after it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Patience:
    """Repeats measurements that other processes disturbed, within a time limit for all repetitions.

    Attributes:
        seconds_left: seconds that may still be spent on repetitions.
        other_share: largest share of the CPUs that other processes used during an accepted measurement.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds_left = seconds
        self.other_share = 0.0

    def run(self, work: Callable[[], Result]) -> tuple[Result, float]:
        """Return the result of `work` and its seconds."""
        while True:
            before, start = _other_cpu_seconds(), now()
            result = work()
            seconds = now() - start
            share = (_other_cpu_seconds() - before) / (seconds * (os.cpu_count() or 1))
            if share <= QUIET or self.seconds_left <= 0:
                self.other_share = max(self.other_share, share)
                return result, seconds
            self.seconds_left -= seconds
            self._wait()

    def _wait(self) -> None:
        """Wait until other processes use less of the CPUs."""
        share = 1.0
        while share > QUIET and self.seconds_left > 0:
            before = _other_cpu_seconds()
            time.sleep(POLL_SECONDS)
            share = (_other_cpu_seconds() - before) / (POLL_SECONDS * (os.cpu_count() or 1))
            self.seconds_left -= POLL_SECONDS


def _other_cpu_seconds() -> float:
    """CPU seconds of other processes since boot, up to a constant; 0 on systems other than Linux."""
    times = os.times()
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - sum(times[:4])


def alternate(
    works: Mapping[str, Callable[[], object]], rounds: int, patience: Patience | None = None
) -> dict[str, list[float]]:
    """Time each function once per round, in turn, so that noise affects all equally. The first round is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    patience = patience or Patience()
    for number in range(rounds + 1):
        for name, work in works.items():
            if number:
                seconds[name].append(patience.run(work)[1])
            else:
                work()
    return seconds


def now() -> float:
    """Return the time in seconds, after all launched work on the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def same_round_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """Median over rounds of `values / base`; slow phases of the machine cancel within a round."""
    return statistics.median(a / b for a, b in zip(values, base, strict=True))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of live tensors that were created inside the block. Independent of the machine.

    Attributes:
        now: bytes alive now.
        peak: maximum of `now`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._storages: dict[int, weakref.ref[UntypedStorage]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        inputs = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), inputs)
        return result

    def _add(self, storage: UntypedStorage, inputs: set[int]) -> None:
        key = id(storage)
        if key in inputs or key in self._storages:  # a view, or changed in place
            return
        size = storage.nbytes()

        def release(_: object) -> None:
            self.now -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, release)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak memory in bytes of the tensors that `work` creates, without its inputs."""
    with LiveBytes() as live:
        work()
    return live.peak


def matmul_peak(dtype: torch.dtype, size: int, seconds: float = 2.0) -> float:
    """FLOP/s of the fastest matrix product of this size and type within `seconds`, the reference for other kernels."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds or best == float("inf"):
        began = now()
        torch.mm(left, right)
        best = min(best, now() - began)
    return 2 * size**3 / best


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that all measuring scripts have."""
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        help="seconds for repeating measurements during which other processes used a tenth of the CPUs or more",
    )


def write_results(
    path: Path | None, name: str, values: Mapping[str, object], patience: Patience | None = None
) -> None:
    """Write one script's numbers, and the load of the machine, to a JSON file that other scripts may share."""
    if path is None:
        return
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    noise = {"load_before": LOAD_BEFORE} | ({} if patience is None else {"others": patience.other_share})
    noises = {**results.get("noise", {}), name: noise}
    write_json(path, {**results, "machine": machine(), "noise": noises, name: values})
