"""Notices while a server starts: updated in place on a terminal, one line every 30 s in a log file."""

import sys

LOG_INTERVAL = 30.0  # seconds between lines in a log file


class WaitNotice:
    """Callback that prints how long a wait has lasted; call it with the seconds."""

    def __init__(self, label: str) -> None:
        self.label, self._next = label, 0.0

    def __call__(self, seconds: float) -> None:
        if seconds >= self._next:
            terminal = sys.stderr.isatty()
            print(f"{self.label}: {seconds:.0f} s", end="\r" if terminal else "\n", file=sys.stderr, flush=True)
            self._next = seconds + (1.0 if terminal else LOG_INTERVAL)
