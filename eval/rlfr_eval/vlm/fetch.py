"""Get a data set's TSV file from where VLMEvalKit gets it, check and lock it. A file that is there stays."""

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlfr_eval.lockfile import read_lock, write_lock
from rlfr_eval.vlm.benchmarks import VlmBenchmark
from rlfr_eval.vlm.problems import check_file, md5_of
from rlfr_vlm.errors import UserError

TIME_LIMIT = 60.0  # seconds without a byte
PIECE = 1 << 20


def fetch_vlm(
    benchmark: VlmBenchmark, data_dir: Path, relock: bool = False, on_bytes: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Make `DATA_DIR/NAME.tsv` and its entry in the lock file.

    Args:
        relock: accept a file that is there, although it is not the expected one.
        on_bytes: told of bytes got and bytes in all (0: not said).

    Returns:
        The lock's entry.

    Raises:
        UserError: it cannot be had, or is not the expected copy. Nothing is left then.
    """
    path = data_dir / f"{benchmark.vlmeval}.tsv"
    origin = read_lock(data_dir).get(benchmark.name, {}).get("source", "a file that was there")
    if not path.exists():
        origin = benchmark.url
        _download(benchmark, path, on_bytes or (lambda got, total: None))
    found = md5_of(path) if relock else check_file(benchmark, data_dir)[1]
    entry = {"source": origin, "revision": "", "content_sha256": found, "hash": "md5", "licence": benchmark.licence}
    write_lock(data_dir, benchmark.name, entry)
    return entry


def _download(benchmark: VlmBenchmark, path: Path, on_bytes: Callable[[int, int], None]) -> None:
    if not benchmark.url:
        raise UserError(f"Nobody says where {benchmark.name} comes from. Put its file at {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with urllib.request.urlopen(benchmark.url, timeout=TIME_LIMIT) as reply, scratch.open("wb") as stream:
            total, got = int(reply.headers.get("content-length") or 0), 0
            while piece := reply.read(PIECE):
                stream.write(piece)
                got += len(piece)
                on_bytes(got, total)
        if total and got != total:
            raise UserError(f"Only {got} of {total} bytes of {benchmark.url} came. Run the same command again.")
        found = md5_of(scratch)
        if benchmark.md5 and found != benchmark.md5:
            raise UserError(
                f"What {benchmark.url} sent has the MD5 {found}; VLMEvalKit's copy has {benchmark.md5}. "
                "Nothing was kept."
            )
        shutil.move(scratch, path)
    except (urllib.error.URLError, TimeoutError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"Cannot get {benchmark.url}: {reason}. Where it cannot be reached, copy {path.name} to {path.parent}."
        ) from None
    finally:
        scratch.unlink(missing_ok=True)
