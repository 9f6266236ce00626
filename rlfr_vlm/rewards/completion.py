"""What a reward sees of a response."""

from typing import Any


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Text of a completion in either of TRL's shapes: a string, or one assistant message."""
    return completion if isinstance(completion, str) else completion[0]["content"] or ""
