"""Download a data set's TSV file from VLMEvalKit's source, check it and record it in the lock file."""

import fcntl
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from rlfr_eval.benchmarks.lockfile import read_lock, write_lock
from rlfr_eval.benchmarks.vlm import VlmBenchmark
from rlfr_eval.benchmarks.vlm_problems import check_file, md5_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject

TIME_LIMIT = 60.0  # seconds without a byte
CHUNK = 1 << 20  # bytes read at a time


class HostUnreachable(UserError):
    """No connection to a server. Another file from there would wait as long.

    Attributes:
        host: name of the server.
    """

    def __init__(self, text: str, host: str) -> None:
        super().__init__(text)
        self.host = host


def fetch_vlm(
    benchmark: VlmBenchmark, data_dir: Path, relock: bool = False, on_bytes: Callable[[int, int], None] | None = None
) -> JsonObject:
    """Write `DATA_DIR/NAME.tsv` and its lock entry. An existing file is checked and never replaced.

    Args:
        relock: accept an existing or downloaded file that differs from the locked one.
        on_bytes: called with the bytes received and the total bytes (0 if unknown).

    Returns:
        The entry of the lock file.

    Raises:
        UserError: the download fails, or the file is not the expected copy. No partial file is left.
    """
    path = data_dir / f"{benchmark.vlmeval}.tsv"
    locked = read_lock(data_dir).get(benchmark.name, {})
    origin = locked.get("source", "a file that was there")
    if not path.exists():
        origin = benchmark.url
        expected = "" if relock else locked.get("content_sha256", "")
        _download(benchmark, path, expected, on_bytes or (lambda received, total: None))
    md5 = md5_of(path) if relock else check_file(benchmark, data_dir)[1]
    entry = {"source": origin, "revision": "", "content_sha256": md5, "hash": "md5", "licence": benchmark.licence}
    write_lock(data_dir, benchmark.name, entry)
    return entry


def _download(benchmark: VlmBenchmark, path: Path, locked: str, on_bytes: Callable[[int, int], None]) -> None:
    if not benchmark.url:
        raise UserError(f"{benchmark.name} has no download address. Put its file at {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _scratch(path) as (scratch, stream):
            _receive(benchmark.url, stream, on_bytes)
            md5 = md5_of(scratch)
            if benchmark.md5 and md5 != benchmark.md5:
                raise UserError(
                    f"The file that {benchmark.url} sent has the MD5 {md5}; VLMEvalKit's copy has {benchmark.md5}. "
                    "Nothing was kept."
                )
            if locked and md5 != locked:
                raise UserError(
                    f"The file that {benchmark.url} sent has the MD5 {md5}; the one that was locked has {locked}. "
                    "Nothing was kept. Accept it with --relock."
                )
            if path.exists():
                raise UserError(f"{path} was created meanwhile. It stays; run the same command again.")
            scratch.replace(path)
    except (http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        text = f"Cannot get {benchmark.url}: {reason}. If it cannot be reached, copy {path.name} to {path.parent}."
        if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
            raise HostUnreachable(text, host_of(benchmark)) from None
        raise UserError(text) from None


def host_of(benchmark: VlmBenchmark) -> str:
    """Return the name of the server that has a benchmark's file; "" if no address is known."""
    return urlsplit(benchmark.url).hostname or ""


@contextmanager
def _scratch(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Yield a locked temporary file beside `path` and delete it afterwards.

    Its name is fixed, so that the next process overwrites the rest of a killed one.
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
        total, received = int(reply.headers.get("content-length") or 0), 0
        while chunk := reply.read(CHUNK):
            stream.write(chunk)
            received += len(chunk)
            on_bytes(received, total)
    stream.flush()
    # http.client does not report a connection that ends early
    if total and received != total:
        raise UserError(f"Only {received} of {total} bytes of {url} were received. Run the same command again.")
