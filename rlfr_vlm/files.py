"""Atomic writes, so that a reader gets the old or the new content of a file; folders and their names."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from rlfr_vlm.errors import UserError

JsonObject: TypeAlias = dict[str, Any]
JsonMapping: TypeAlias = Mapping[str, Any]  # a JSON object that is only read


def write_text(path: Path, text: str) -> None:
    """Write `text` to a temporary file in the same folder, then rename it to `path`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file in the same folder, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes the file private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        ValueError: `value` contains NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def replace_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `path` if the block ends without an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)  # mkdtemp makes the folder private
        previous = path.with_name(f".{path.name}.previous")
        shutil.rmtree(previous, ignore_errors=True)
        if path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
        shutil.rmtree(previous, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def make_folder(path: Path) -> None:
    """Create a folder for results, with its parents.

    Raises:
        UserError: the folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot make the folder {path}: {error.strerror}. Choose another one.") from None


def refuse_existing(folder: Path) -> None:
    """Refuse a folder to write that is a file or has content.

    Raises:
        UserError: something is there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already. Name a new folder with --to, or remove it.")


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Shortest path suffixes of the same length that tell the folders apart.

    >>> distinct_names([Path("out/seed1/rlvr"), Path("out/seed1/rlfr"), Path("out/seed2/rlfr")])
    ['seed1/rlvr', 'seed1/rlfr', 'seed2/rlfr']
    """
    parts = [folder.absolute().parts for folder in folders]
    length = 1
    while length < max(map(len, parts)) and len({path[-length:] for path in parts}) < len(parts):
        length += 1
    return ["/".join(path[-length:]) for path in parts]


def cache_root() -> Path:
    """Cache folder: RLFR_CACHE if set, else `rlfr-vlm` in the user's cache directory.

    Raises:
        UserError: there is no home directory.
    """
    if folder := os.environ.get("RLFR_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "rlfr-vlm"
    try:
        return Path.home() / ".cache" / "rlfr-vlm"
    except RuntimeError:
        raise UserError("There is no home directory for the cache. Set RLFR_CACHE to a folder for it.") from None


def cache_folder(name: str = "", fallback: Path | None = None) -> Path:
    """Create and return a folder of the cache; where that cannot be written, one of the run folder.

    Args:
        fallback: the run folder; None if there is none.

    Raises:
        UserError: no folder can be written.
    """
    try:
        folder = cache_root() / name
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return folder
    except (OSError, UserError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
    if fallback is None:
        raise UserError(f"The cache cannot be written ({reason}). Set RLFR_CACHE to a folder that can be.")
    folder = fallback / "cache" / name
    make_folder(folder)
    print(f"note: the cache cannot be written ({reason}); {folder} is used instead", file=sys.stderr)
    return folder
