"""The provenance of a result: package versions, git commit, hashes of configurations."""

import hashlib
import importlib.metadata
import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

GIT_TIMEOUT = 10  # seconds


def installed_version(name: str) -> str | None:
    """Version of a distribution, or None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of the named distributions that are installed, in the order of `names`."""
    versions = {name: installed_version(name) for name in names}
    return {name: version for name, version in versions.items() if version is not None}


@dataclass(frozen=True)
class GitCommit:
    """The commit of a checkout.

    Attributes:
        commit: 40 hexadecimal digits.
        changed: whether tracked files differ from it.
    """

    commit: str
    changed: bool


def git_commit(path: Path) -> GitCommit | None:
    """Commit of the repository that tracks the file `path`; None if no repository does.

    A package installed into a virtual environment inside some repository is not tracked by it, hence the check.
    """

    def git(*arguments: str) -> str:
        process = subprocess.run(
            ["git", "-C", str(path.parent), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=GIT_TIMEOUT,
            env={**os.environ, "LC_ALL": "C"},
        )
        return process.stdout.strip()

    try:
        if not git("ls-files", "--error-unmatch", str(path)):
            return None
        return GitCommit(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "-uno")))
    except (OSError, subprocess.SubprocessError):
        return None


def short_hash(value: object, length: int = 16, *, sort_keys: bool = True) -> str:
    """First `length` hexadecimal digits of the SHA-256 of a JSON value.

    Caches and run folders are found by these hashes: the serialisation must never change.

    >>> short_hash({"b": 1, "a": [None, "x"]}), short_hash({"a": [None, "x"], "b": 1}, 8)
    ('8b88b1c24a300a34', '8b88b1c2')
    """
    return hashlib.sha256(json.dumps(value, sort_keys=sort_keys).encode()).hexdigest()[:length]
