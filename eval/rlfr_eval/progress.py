"""Progress bars and wait notices: updated in place on a terminal, one line every 30 s in a log file."""

import sys
from collections.abc import Callable

from tqdm import tqdm

LOG_INTERVAL = 30.0  # seconds between lines in a log file


def _interval() -> float:
    return 0.1 if sys.stderr.isatty() else LOG_INTERVAL


def answer_bar(total: int, label: str, done: int = 0) -> tqdm:
    """Return a progress bar that counts answers."""
    return tqdm(total=total, initial=done, desc=label, unit="answer", mininterval=_interval(), file=sys.stderr)


def download_bar(label: str) -> Callable[[int, int], None]:
    """Return a callback that shows a download's progress; call it with bytes received and total bytes."""
    bar: tqdm | None = None

    def update(received: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total or None, desc=label, unit="B", unit_scale=True, mininterval=_interval())
        bar.update(received - bar.n)
        if received == total:
            bar.close()

    return update


class WaitNotice:
    """Callback that prints how long a wait has lasted; call it with the seconds."""

    def __init__(self, label: str) -> None:
        self.label, self._next = label, 0.0

    def __call__(self, seconds: float) -> None:
        if seconds >= self._next:
            terminal = sys.stderr.isatty()
            print(f"{self.label}: {seconds:.0f} s", end="\r" if terminal else "\n", file=sys.stderr, flush=True)
            self._next = seconds + (1.0 if terminal else LOG_INTERVAL)
