"""Download a text benchmark's rows as JSONL for `text_problems.py` and record them in the lock file."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.lockfile import read_lock, write_lock
from rlfr_eval.benchmarks.text import Benchmark, Source
from rlfr_eval.benchmarks.text_problems import read_problems
from rlfr_eval.json_types import JsonObject
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import write_text


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
    source, locked = benchmark.source, read_lock(data_dir).get(benchmark.name, {})
    if path.exists():
        origin, revision = locked.get("source", "a file that was there"), locked.get("revision", "")
        data = read_problems(benchmark, data_dir, check=not relock)
    else:
        pinned = "" if relock else locked.get("revision", "")
        origin, revision = source.repo, pinned or _revision(source)
        rows = [_row(row, source, f"{benchmark.name}-{number}") for number, row in enumerate(_load(source, revision))]
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


def _revision(source: Source) -> str:
    """Return the pinned commit, or the newest one, which the lock file then pins."""
    if source.revision or Path(source.repo).exists():
        return source.revision
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.repo).sha or ""
    except Exception as error:  # the hub client raises many exception types: offline, gated, missing
        raise UserError(_unreachable(source, error)) from None


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
        raise UserError(_unreachable(source, error)) from None


def _unreachable(source: Source, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"Cannot get {source.repo}: {reason[:300]}. Where the hub cannot be reached, copy NAME.jsonl with the columns "
        "problem and answer into the data folder; a gated data set needs `hf auth login` first."
    )


def _row(row: JsonObject, source: Source, default_id: str) -> JsonObject:
    """Convert a row of the source to the columns id, problem, answer and options."""
    result = {
        "id": str(_column(row, source.id, source)) if source.id else default_id,
        "problem": _column(row, source.problem, source),
        "answer": _column(row, source.answer, source),
    }
    if source.options:
        result["options"] = list(_column(row, source.options, source))
    return result


def _column(row: JsonObject, column: str, source: Source) -> Any:
    """Return the value of a column, which may be a nested `a.b`; of a chat, the user's text."""
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{source.repo} has no column {column!r}.{nearest(column, row)} It has {', '.join(row)}.")
        value = value[part]
    if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
        return "\n".join(message["content"] for message in value if message["role"] == "user")
    return value
