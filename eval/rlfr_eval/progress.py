"""Progress with the time left; on a terminal it moves, in a log file it adds a line now and then."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

LOG_INTERVAL = 30.0  # seconds between lines where nobody watches


def bar(total: int, what: str, done: int = 0) -> Any:
    """A bar that counts answers."""
    interval = 0.1 if sys.stderr.isatty() else LOG_INTERVAL
    return tqdm(total=total, initial=done, desc=what, unit="answer", mininterval=interval, file=sys.stderr)


def bytes_bar(what: str) -> Callable[[int, int], None]:
    """A bar of a download; call it with bytes got and bytes in all."""
    shown: Any = None

    def tell(got: int, total: int) -> None:
        nonlocal shown
        if shown is None:
            interval = 0.1 if sys.stderr.isatty() else LOG_INTERVAL
            shown = tqdm(total=total or None, desc=what, unit="B", unit_scale=True, mininterval=interval)
        shown.update(got - shown.n)
        if got == total:
            shown.close()

    return tell


class Clock:
    """Says how long something has been waited for. Call it with the seconds."""

    def __init__(self, what: str) -> None:
        self.what, self._next = what, 0.0

    def __call__(self, seconds: float) -> None:
        if seconds >= self._next:
            watched = sys.stderr.isatty()
            print(f"{self.what}: {seconds:.0f} s", end="\r" if watched else "\n", file=sys.stderr, flush=True)
            self._next = seconds + (1.0 if watched else LOG_INTERVAL)
