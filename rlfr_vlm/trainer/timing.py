"""Seconds of each part of a training step."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PartTimes:
    """Adds up wall time by part. On CUDA it waits for the device, so that times are of work, not of launches."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = self.now()
        yield
        self.seconds[part] += self.now() - start

    def take(self, updates: float) -> dict[str, float]:
        """Seconds per update of each part so far; starts over."""
        taken = {f"seconds/{part}": seconds / updates for part, seconds in self.seconds.items()}
        self.seconds.clear()
        return taken
