"""What the runs of a sweep share of a machine: its GPUs, the launcher's processes, and the folder, by a lock."""

import fcntl
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from rlfr_vlm.errors import UserError

LOCK_FILE = ".lock"
PROCESS_OPTIONS = ("--num_processes", "--num-processes", "--nproc_per_node", "--nproc-per-node")  # of launchers


def launcher_of(text: str) -> list[str]:
    """Split the value of `--launcher` as a shell does.

    Raises:
        UserError: a quote is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"--launcher is {text!r}: {error}.") from None


def processes_of(launcher: Sequence[str]) -> int:
    """Return how many processes a launcher starts, as far as its options say.

    >>> processes_of("accelerate launch --num_processes 8".split()), processes_of(["torchrun", "--nproc_per_node=2"])
    (8, 2)
    """
    words = [part for word in launcher for part in word.split("=", 1)]
    counts = [int(value) for name, value in pairwise(words) if name in PROCESS_OPTIONS and value.isdecimal()]
    return counts[0] if counts else 1


def devices_of(gpus: int) -> list[str]:
    """Return the GPUs that runs take in turn; none where there is at most one, which every run sees anyway."""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [] if gpus < 2 else named or [str(number) for number in range(gpus)]


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a lock on a folder; yields its file descriptor.

    Runs inherit it: beside one that outlives a killed sweep, a second process must not write to the same folder.

    Raises:
        UserError: another process holds it.
    """
    with (folder / LOCK_FILE).open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another sweep, or a run that a killed one left, is working in {folder}. Wait until it has ended, or "
                "name another --out."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield stream.fileno()
