"""Download a text benchmark's rows as JSONL for `text_problems.py` and record them in the lock file."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from rlfr_eval.benchmarks.lockfile import read_lock, write_lock
from rlfr_eval.benchmarks.text import Benchmark, Source
from rlfr_eval.benchmarks.text_problems import read_problems, with_known_columns
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_text

HUB_TIME_LIMIT = 10.0  # seconds


def fetch(benchmark: Benchmark, data_dir: Path, relock: bool = False) -> JsonObject:
    """Write `DATA_DIR/NAME.jsonl` and its lock entry. An existing file is checked and never replaced.

    Args:
        relock: accept an existing file whose hash is not the expected one.

    Returns:
        The entry of the lock file.

    Raises:
        UserError: the source cannot be downloaded, or has other columns or rows than expected.
    """
    path = data_dir / f"{benchmark.name}.jsonl"
    if benchmark.task:
        raise UserError(f"There is nothing to fetch: the rows of {benchmark.task} are generated where they are asked.")
    if benchmark.path or not benchmark.source.repo:
        where = f"reads {benchmark.path}" if benchmark.path else f"names no [source] repo; put its rows at {path}"
        raise UserError(f"There is nothing to fetch: {benchmark.name} {where}.")
    source, locked = benchmark.source, read_lock(data_dir).get(benchmark.name, {})
    if path.exists():
        origin, revision = locked.get("source", "a file that was there"), locked.get("revision", "")
        data = read_problems(benchmark, data_dir, check=not relock)
    else:
        pinned = "" if relock else locked.get("revision", "")
        newest = _revision(source)
        origin, revision = source.repo, pinned or newest
        rows = [
            {"id": f"{benchmark.name}-{number}", **with_known_columns(row, source, source.repo)}
            for number, row in enumerate(_load(source, revision))
        ]
        if benchmark.n and len(rows) != benchmark.n:
            where = f"{source.repo} {revision}".strip()
            raise UserError(f"{where} has {len(rows)} rows; {benchmark.title} has {benchmark.n}. Nothing was written.")
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        # The content must match an existing lock entry. Without one, a difference from the benchmark's file is
        # only reported.
        data = read_problems(benchmark, data_dir, check=bool(locked) and not relock)
    entry = {
        "source": origin,
        "revision": revision,
        "content_sha256": data.sha256,
        "rows": len(data.problems),
        "licence": benchmark.licence,
    }
    write_lock(data_dir, benchmark.name, entry)
    return entry


@cache
def hub_unreachable() -> str:
    """Return why the hub cannot be reached, or "". It is asked once: the hub's client tries again for minutes."""
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        return ""  # the client then reads its cache, and says so where that is not enough
    try:
        urllib.request.urlopen(HfApi().endpoint, timeout=HUB_TIME_LIMIT).close()
    except urllib.error.HTTPError:
        return ""  # it answers
    except (OSError, ValueError) as error:
        return f"{HfApi().endpoint} does not answer ({getattr(error, 'reason', None) or error})"
    return ""


def _revision(source: Source) -> str:
    """Return the pinned commit, or the newest one, which the lock file then pins."""
    if Path(source.repo).exists():
        return source.revision
    if reason := hub_unreachable():
        raise UserError(_unreachable(source, reason))
    if source.revision:
        return source.revision
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.repo).sha or ""
    except Exception as error:  # the hub client raises many exception types: offline, gated, missing
        raise UserError(_unreachable(source, str(error).strip() or type(error).__name__)) from None


def _load(source: Source, revision: str) -> Iterable[JsonObject]:
    import datasets

    folder = Path(source.repo)
    try:
        return datasets.load_dataset(
            str(folder.resolve()) if folder.exists() else source.repo,
            name=source.config or None,
            data_files=source.file or None,
            # datasets puts a single data file into the split "train"
            split="train" if source.file else source.split,
            revision=revision or None,
        )
    except Exception as error:  # the hub, the network and file formats raise many exception types
        raise UserError(_unreachable(source, str(error).strip() or type(error).__name__)) from None


def _unreachable(source: Source, reason: str) -> str:
    return (
        f"Cannot get {source.repo}: {reason.splitlines()[0][:300]}. Where the hub cannot be reached, copy "
        "NAME.jsonl with the columns problem and answer into the data folder; a gated data set needs `hf auth login` "
        "first."
    )
