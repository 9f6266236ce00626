"""Which grader reached a verdict: a hash of its own source, so that no one can forget to raise a number."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def grader_version() -> str:
    """Twelve hex digits of the grader's source files and of the versions of the libraries it asks.

    >>> len(grader_version())
    12
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for library in ("math-verify", "latex2sympy2_extended", "sympy"):
        digest.update(f"{library}=={version(library)}".encode())
    return digest.hexdigest()[:12]
