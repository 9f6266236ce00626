"""Append-only JSONL files. Each line is one write; opening a file for writing cuts off an incomplete last line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from rlfr_vlm.files import JsonObject

TAIL = 1 << 20  # bytes read at a time when looking for the last line end


class Lines:
    """A JSONL file that is appended to and read from the start, never changed.

    Attributes:
        repaired: whether an incomplete last line was cut off.
        damaged: number of lines that the last iteration could not parse and skipped.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path, self.repaired, self.damaged = path, False, 0
        self._descriptor: int | None = None
        if not read_only:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self.repaired = _cut_torn_line(self._descriptor)

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def append(self, *rows: JsonObject) -> None:
        """Write rows to the file before returning."""
        assert self._descriptor is not None, "opened for reading only"
        text = b"".join(json.dumps(row, ensure_ascii=True).encode() + b"\n" for row in rows)
        while text:
            text = text[os.write(self._descriptor, text) :]

    def __iter__(self) -> Iterator[JsonObject]:
        self.damaged = 0
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            for line in stream:
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    yield row
                else:
                    self.damaged += 1

    def close(self) -> None:
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def _cut_torn_line(descriptor: int) -> bool:
    """Truncate the file after its last line end; returns whether anything was cut."""
    size = os.fstat(descriptor).st_size
    end = size
    while end > 0:
        start = max(0, end - TAIL)
        block = os.pread(descriptor, end - start, start)
        position = block.rfind(b"\n")
        if position >= 0:
            end = start + position + 1
            break
        end = start
    if end == size:
        return False
    os.ftruncate(descriptor, end)
    return True
