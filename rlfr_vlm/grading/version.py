"""Version of the grader: a hash of its source, so that it changes with every edit."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def grader_version() -> str:
    """Return twelve hex digits that hash the grader's source files and the versions of its libraries.

    >>> len(grader_version())
    12
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for library in ("math-verify", "latex2sympy2_extended", "sympy"):
        digest.update(f"{library}=={version(library)}".encode())
    return digest.hexdigest()[:12]
