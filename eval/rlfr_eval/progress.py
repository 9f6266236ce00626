"""Progress bars: updated in place on a terminal, one line every 30 s in a log file."""

import sys
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from rlfr_vlm.servers.wait_notice import LOG_INTERVAL


class LogLines:
    """A stream for a bar in a log file: each state of the bar is a line. tqdm starts every state with `\\r`."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.encoding = stream.encoding  # tqdm draws its blocks if the encoding has them

    def write(self, text: str) -> None:
        if state := text.strip():
            self.stream.write(f"{state}\n")

    def flush(self) -> None:
        self.stream.flush()


def _bar(total: int | None, label: str, unit: str, done: int = 0, scaled: bool = False) -> tqdm:
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=label,
        unit=unit,
        unit_scale=scaled,
        mininterval=0.1 if terminal else LOG_INTERVAL,
        file=sys.stderr if terminal else LogLines(sys.stderr),
    )


def answer_bar(total: int, label: str, done: int = 0) -> tqdm:
    """Return a progress bar that counts answers."""
    return _bar(total, label, "answer", done)


def download_bar(label: str) -> Callable[[int, int], None]:
    """Return a callback that shows a download's progress; call it with bytes received and total bytes."""
    bar: tqdm | None = None

    def update(received: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = _bar(total or None, label, "B", scaled=True)
        bar.update(received - bar.n)
        if received == total:
            bar.close()

    return update
