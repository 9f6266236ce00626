"""What the speed scripts share: the machine, alternating runs, peak memory, tables, JSON."""

import argparse
import json
import os
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlfr_vlm.files import write_json
from rlfr_vlm.trainer.records.run_record import git_state, hardware, versions

Result = TypeVar("Result")
QUIET = 0.1  # other processes may take this share of the processors without disturbing a measurement
LOOK_SECONDS = 3.0
LOAD_BEFORE = os.getloadavg()[0]  # of the last minute, when the script began


def machine() -> dict[str, Any]:
    """Date, processor, devices, versions, commit: what a number needs beside it."""
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"), "processor": processor(), "threads": torch.get_num_threads(),
        "hardware": hardware(), "versions": versions(), "git": git_state(),
    }  # fmt: skip


def processor() -> str:
    """The processor's name, for the name of a results file too."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Patience:
    """Repeats a measurement that other processes disturbed, until its seconds are spent.

    Attributes:
        left: seconds.
        others: the largest share of the machine's processors that others took during a measurement that was kept.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.left = seconds
        self.others = 0.0

    def run(self, work: Callable[[], Result]) -> tuple[Result, float]:
        """What the work returned, and its seconds."""
        while True:
            before, start = _others_seconds(), now()
            result = work()
            seconds = now() - start
            others = (_others_seconds() - before) / (seconds * (os.cpu_count() or 1))
            if others <= QUIET or self.left <= 0:
                self.others = max(self.others, others)
                return result, seconds
            self.left -= seconds
            self._wait()

    def _wait(self) -> None:
        """Leave the machine to the others until they need less of it."""
        others = 1.0
        while others > QUIET and self.left > 0:
            before = _others_seconds()
            time.sleep(LOOK_SECONDS)
            others = (_others_seconds() - before) / (LOOK_SECONDS * (os.cpu_count() or 1))
            self.left -= LOOK_SECONDS


def _others_seconds() -> float:
    """Processor seconds of other processes since the machine started, plus a constant; only Linux tells."""
    own = os.times()
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK") - sum(own[:4])


def alternate(
    works: Mapping[str, Callable[[], object]], rounds: int, patience: Patience | None = None
) -> dict[str, list[float]]:
    """Seconds of each work, taking turns so that a noisy machine disturbs all alike; the first round is dropped."""
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
    """Time when the device has done its work."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def same_round_ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """Median of the ratios of the same rounds: what stays when the whole machine is slow for a while."""
    return statistics.median(a / b for a, b in zip(values, base, strict=True))


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made inside the block that live at the same time; the same on every machine.

    Attributes:
        peak: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self.now = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(tensor.untyped_storage()) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage(), given)
        return result

    def _note(self, storage: Any, given: set[int]) -> None:
        key = id(storage)
        if key in given or key in self._known:  # a view, or changed in place
            return
        size = storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes of the tensors that the work holds at most, beyond what it was given."""
    with LiveBytes() as live:
        work()
    return live.peak


def matmul_peak(dtype: Any, size: int, seconds: float = 2.0) -> float:
    """FLOP/s of the machine's best matrix product of this size and type: what other numbers are a share of."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < seconds or best == float("inf"):
        began = now()
        torch.mm(left, right)
        best = min(best, now() - began)
    return 2 * size**3 / best


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that measuring scripts share."""
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument(
        "--patience", type=float, default=0.0,
        help="seconds for repeating what other processes disturbed, by taking a tenth of the processors or more",
    )  # fmt: skip


def write_results(path: Path | None, name: str, values: Mapping[str, Any], patience: Patience | None = None) -> None:
    """Put one script's numbers, and how busy the machine was, into a JSON file that several may share."""
    if path is None:
        return
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    noise = {"load_before": LOAD_BEFORE} | ({} if patience is None else {"others": patience.others})
    write_json(path, {**known, "machine": machine(), "noise": {**known.get("noise", {}), name: noise}, name: values})
