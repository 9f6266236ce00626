"""Seconds and peak memory of each part of a training step."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

GB = 1e9


class PartTimes:
    """Adds up wall time by part, and keeps each part's peak of memory.

    On CUDA it waits for the device, so that times are of work, not of launches; memory is what torch has allocated
    there at most. On a CPU memory is the process's own at the end of the part. A part inside another counts for both.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.peaks: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._paused = False

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        if self._paused:
            yield
            return
        start = self.now()
        self._note()
        self._running.append(part)
        yield
        self._note()
        self._running.remove(part)
        self.seconds[part] += self.now() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing counts: it is no part of a training step."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def take(self, updates: float) -> dict[str, float]:
        """Seconds per update of each part, and its peak memory in GB, since the last call; starts over."""
        taken = {f"seconds/{part}": seconds / updates for part, seconds in self.seconds.items()}
        taken |= {f"memory/{part}_gb": peak / GB for part, peak in self.peaks.items()}
        taken["memory/host_gb"] = host_memory() / GB
        self.seconds.clear()
        self.peaks.clear()
        return taken

    def _note(self) -> None:
        """What was reached since the last note belongs to every part that is running."""
        if self.device.type == "cuda":
            reached = float(torch.cuda.max_memory_allocated(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            reached = host_memory()
        for part in self._running:
            self.peaks[part] = max(self.peaks[part], reached)


def largest(taken: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of what all processes took, the slowest and fullest."""
    names = dict.fromkeys(name for own in taken for name in own)
    return {name: max(own.get(name, 0.0) for own in taken) for name in names}


def host_memory() -> float:
    """Bytes of main memory that this process holds."""
    import psutil

    return float(psutil.Process().memory_info().rss)
