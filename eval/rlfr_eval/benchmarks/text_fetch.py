"""Get a benchmark's rows from its source, as the plain JSONL that `problems.py` reads, and lock what was got."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.lockfile import read_lock, write_lock
from rlfr_eval.benchmarks.text import Benchmark, Source
from rlfr_eval.benchmarks.text_problems import read_problems
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import write_text


def fetch(benchmark: Benchmark, data_dir: Path, relock: bool = False) -> dict[str, Any]:
    """Make `DATA_DIR/NAME.jsonl` and its entry in the lock file; a file that is there is never replaced.

    Args:
        relock: accept a file that is there, although its hash is not the expected one.

    Returns:
        The lock's entry.

    Raises:
        UserError: the source cannot be had, or has other columns or rows than expected.
    """
    path = data_dir / f"{benchmark.name}.jsonl"
    source, known = benchmark.source, read_lock(data_dir).get(benchmark.name, {})
    if path.exists():
        origin, revision = known.get("source", "a file that was there"), known.get("revision", "")
        found = read_problems(benchmark, data_dir, check=not relock)
    else:
        pinned = "" if relock else known.get("revision", "")
        origin, revision = source.repo, pinned or _revision(source)
        rows = [_row(row, source, f"{benchmark.name}-{number}") for number, row in enumerate(_load(source, revision))]
        if benchmark.n and len(rows) != benchmark.n:
            where = f"{source.repo} {revision}".strip()
            raise UserError(f"{where} has {len(rows)} rows; {benchmark.title} has {benchmark.n}. Nothing was written.")
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        # what was fetched once must come again; the first time, whether it is the known copy is said, not demanded
        found = read_problems(benchmark, data_dir, check=bool(known) and not relock)
    entry = {
        "source": origin,
        "revision": revision,
        "content_sha256": found.sha256,
        "rows": len(found.problems),
        "licence": benchmark.licence,
    }
    write_lock(data_dir, benchmark.name, entry)
    return entry


def _revision(source: Source) -> str:
    """The pinned commit, or the newest one's name, so that the lock file can pin it."""
    if source.revision or Path(source.repo).exists():
        return source.revision
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(source.repo).sha or ""
    except Exception as error:  # whatever the hub client raises: offline, gated, gone
        raise UserError(_unreachable(source, error)) from None


def _load(source: Source, revision: str) -> Iterable[dict[str, Any]]:
    import datasets

    folder = Path(source.repo)
    try:
        return datasets.load_dataset(
            str(folder.resolve()) if folder.exists() else source.repo,
            name=source.config or None,
            data_files=source.file or None,
            # a single data file is always called train
            split="train" if source.file else source.split,
            revision=revision or None,
        )
    except Exception as error:  # the hub, the network, the file format: many kinds, one meaning
        raise UserError(_unreachable(source, error)) from None


def _unreachable(source: Source, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"Cannot get {source.repo}: {reason[:300]}. Where the hub cannot be reached, copy NAME.jsonl with the columns "
        "problem and answer into the data folder; a gated data set needs `hf auth login` first."
    )


def _row(row: dict[str, Any], source: Source, name: str) -> dict[str, Any]:
    made = {
        "id": str(_column(row, source.id, source)) if source.id else name,
        "problem": _column(row, source.problem, source),
        "answer": _column(row, source.answer, source),
    }
    if source.options:
        made["options"] = list(_column(row, source.options, source))
    return made


def _column(row: dict[str, Any], column: str, source: Source) -> Any:
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{source.repo} has no column {column!r}.{nearest(column, row)} It has {', '.join(row)}.")
        value = value[part]
    if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
        return "\n".join(message["content"] for message in value if message["role"] == "user")
    return value
