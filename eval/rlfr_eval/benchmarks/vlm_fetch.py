"""Get a data set's TSV file from where VLMEvalKit gets it, check and lock it. A file that is there stays."""

import fcntl
import http.client
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rlfr_eval.benchmarks.lockfile import read_lock, write_lock
from rlfr_eval.benchmarks.vlm import VlmBenchmark
from rlfr_eval.benchmarks.vlm_problems import check_file, md5_of
from rlfr_vlm.errors import UserError

TIME_LIMIT = 60.0  # seconds without a byte
PIECE = 1 << 20


def fetch_vlm(
    benchmark: VlmBenchmark, data_dir: Path, relock: bool = False, on_bytes: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Make `DATA_DIR/NAME.tsv` and its entry in the lock file.

    Args:
        relock: accept a file that is there, or that comes, although it is not the one that was locked.
        on_bytes: told of bytes got and bytes in all (0: not said).

    Returns:
        The lock's entry.

    Raises:
        UserError: it cannot be had, or is not the expected copy. Nothing is left then.
    """
    path = data_dir / f"{benchmark.vlmeval}.tsv"
    locked = read_lock(data_dir).get(benchmark.name, {})
    origin = locked.get("source", "a file that was there")
    if not path.exists():
        origin = benchmark.url
        expected = "" if relock else locked.get("content_sha256", "")
        _download(benchmark, path, expected, on_bytes or (lambda got, total: None))
    found = md5_of(path) if relock else check_file(benchmark, data_dir)[1]
    entry = {"source": origin, "revision": "", "content_sha256": found, "hash": "md5", "licence": benchmark.licence}
    write_lock(data_dir, benchmark.name, entry)
    return entry


def _download(benchmark: VlmBenchmark, path: Path, locked: str, on_bytes: Callable[[int, int], None]) -> None:
    if not benchmark.url:
        raise UserError(f"Nobody says where {benchmark.name} comes from. Put its file at {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _scratch(path) as (scratch, stream):
            _receive(benchmark.url, stream, on_bytes)
            found = md5_of(scratch)
            if benchmark.md5 and found != benchmark.md5:
                raise UserError(
                    f"What {benchmark.url} sent has the MD5 {found}; VLMEvalKit's copy has {benchmark.md5}. "
                    "Nothing was kept."
                )
            if locked and found != locked:
                raise UserError(
                    f"What {benchmark.url} sent has the MD5 {found}; the one that was locked has {locked}. Nothing "
                    "was kept. Accept it with --relock."
                )
            if path.exists():
                raise UserError(f"Somebody put {path} there meanwhile. It stays; run the same command again.")
            scratch.replace(path)
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"Cannot get {benchmark.url}: {reason}. Where it cannot be reached, copy {path.name} to {path.parent}."
        ) from None


@contextmanager
def _scratch(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file beside `path`, for one process at a time, that is gone afterwards.

    Its name is always the same, so that what a killed process left is overwritten by the next one.
    """
    scratch = path.with_name(f".{path.name}.part")
    with scratch.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is getting {path.name} into {path.parent}. Wait for it.") from None
        try:
            stream.truncate(0)
            yield scratch, stream
        finally:
            scratch.unlink(missing_ok=True)


def _receive(url: str, stream: IO[bytes], on_bytes: Callable[[int, int], None]) -> None:
    with urllib.request.urlopen(url, timeout=TIME_LIMIT) as reply:
        total, got = int(reply.headers.get("content-length") or 0), 0
        while piece := reply.read(PIECE):
            stream.write(piece)
            got += len(piece)
            on_bytes(got, total)
    stream.flush()
    # http.client takes the end of a connection for the end of the file
    if total and got != total:
        raise UserError(f"Only {got} of {total} bytes of {url} came. Run the same command again.")
