"""Seconds and peak memory of each part of a training step."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

GB = 1e9


class PartTimes:
    """Accumulates wall time and peak memory of each part.

    On CUDA, times are taken after a device synchronisation and memory is torch's peak allocation. On a CPU, memory is
    the resident size of the process at the end of the part. A nested part counts for itself and for the outer part.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.peaks: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._paused = False

    def now(self) -> float:
        """Return the time in seconds, after all launched work on the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time and peak memory of the block to `part`."""
        if self._paused:
            yield
            return
        start = self.now()
        self._record_peak()
        self._running.append(part)
        yield
        self._record_peak()
        self._running.remove(part)
        self.seconds[part] += self.now() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock (evaluation is not part of a training step)."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def take(self, updates: float) -> dict[str, float]:
        """Return seconds per update and peak memory in GB of each part since the last call, and reset both."""
        values = {f"seconds/{part}": seconds / updates for part, seconds in self.seconds.items()}
        values |= {f"memory/{part}_gb": peak / GB for part, peak in self.peaks.items()}
        values["memory/host_gb"] = host_memory() / GB
        self.seconds.clear()
        self.peaks.clear()
        return values

    def _record_peak(self) -> None:
        """Attribute the memory peak since the last call to all open parts."""
        if self.device.type == "cuda":
            peak = float(torch.cuda.max_memory_allocated(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            peak = host_memory()
        for part in self._running:
            self.peaks[part] = max(self.peaks[part], peak)


def largest(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Maximum over ranks of each entry."""
    names = dict.fromkeys(name for rank in values for name in rank)
    return {name: max(rank.get(name, 0.0) for rank in values) for name in names}


def host_memory() -> float:
    """Resident size of this process in bytes."""
    import psutil

    return float(psutil.Process().memory_info().rss)
