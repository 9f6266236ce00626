"""The one error a user is meant to read: plain text that says what is wrong, why, and what mends it."""

import difflib
import errno
from collections.abc import Iterable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """Something only the user can mend. The command line prints its text alone and exits with code 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name closest to `name`, or `""` when none is close.

    >>> nearest("flow_cof", ["flow_coef", "beta"])
    " Did you mean 'flow_coef'?"
    """
    matches = difflib.get_close_matches(name, sorted(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that a disk is full. safetensors and torch wrap the operating system's error in text."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or "PytorchStreamWriter failed writing" in str(error)


def printable(text: str) -> str:
    """Text from data or models, with characters that could steer a terminal shown as escapes; line ends stay.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
