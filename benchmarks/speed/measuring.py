"""What the speed scripts share: the machine, alternating runs, peak memory, tables, JSON."""

import json
import os
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlfr_vlm.files import write_json
from rlfr_vlm.trainer.run_record import git_state, hardware, versions

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


def alternate(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work, taking turns so that a noisy machine disturbs all alike; the first round is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start = now()
            work()
            if number:
                seconds[name].append(now() - start)
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


def write_results(path: Path | None, name: str, values: Mapping[str, Any]) -> None:
    """Put one script's numbers, and how busy the machine was, into a JSON file that several may share."""
    if path is None:
        return
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    busy = {**known.get("load_before", {}), name: LOAD_BEFORE}
    write_json(path, {**known, "machine": machine(), "load_before": busy, name: values})
