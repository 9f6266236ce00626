"""Read the token counts that servers report."""

MAX_TOKENS = 10**9  # of one request; a larger count is no count


def token_count(value: object) -> int | None:
    """Return a server's count of tokens; None if the value is no plausible count.

    >>> token_count(7), token_count(-1), token_count(True), token_count("7"), token_count(10**400)
    (7, None, None, None, None)
    """
    return value if type(value) is int and 0 <= value < MAX_TOKENS else None
