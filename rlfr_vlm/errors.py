"""The error class for problems that the user can fix, and helpers for error messages."""

import difflib
import errno
from collections.abc import Iterable

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
DISK_FULL_TEXTS = (
    "No space left on device",
    "File too large",
    "PytorchStreamWriter failed writing",
    "unexpected pos",
)


class UserError(Exception):
    """A problem that only the user can fix. The command line prints its message without a traceback."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the choice closest to `name`, or `""` if none is close.

    >>> nearest("flow_cof", ["flow_coef", "beta"])
    " Did you mean 'flow_coef'?"
    """
    matches = difflib.get_close_matches(name, sorted(choices), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def is_disk_full(error: BaseException) -> bool:
    """Return whether `error` means that a disk is full, or that a limit on the size of files is reached.

    safetensors and torch only report it in the message text; torch 2.x says `unexpected pos` where its first error
    was hidden by the one of closing the file.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(text in str(error) for text in DISK_FULL_TEXTS)


def printable(text: str) -> str:
    """Escape characters that could control a terminal in text from data or models. Line ends are kept.

    >>> printable("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
