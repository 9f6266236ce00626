"""Progress bars: updated in place on a terminal, one line every 30 s in a log file."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from rlfr_vlm.servers.wait_notice import LOG_INTERVAL


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
