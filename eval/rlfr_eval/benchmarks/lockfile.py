"""Read and write the lock file beside benchmark data: source and content hash of each fetched benchmark."""

import json
from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_json

LOCK_FILE = "rlfr-eval.lock.json"


def read_lock(data_dir: Path) -> dict[str, JsonObject]:
    """Return benchmark -> source, revision, content_sha256, rows, licence; empty without a lock file.

    Raises:
        UserError: the lock file cannot be parsed.
    """
    path = data_dir / LOCK_FILE
    if not path.exists():
        return {}
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the lock file {path}: {error}. Delete it and fetch again.") from None
    if not isinstance(lock, dict) or not all("content_sha256" in entry for entry in lock.values()):
        raise UserError(f"The lock file {path} is no table of benchmarks. Delete it and fetch again.")
    return lock


def write_lock(data_dir: Path, name: str, entry: JsonObject) -> None:
    """Add or replace one benchmark's entry."""
    write_json(data_dir / LOCK_FILE, {**read_lock(data_dir), name: entry})
