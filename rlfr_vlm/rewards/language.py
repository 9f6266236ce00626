"""Language-mix penalty: letters of a script that the prompt does not use."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from rlfr_vlm.rewards.completion import completion_text

# Greek letters name variables in every language.
ALWAYS_FINE = frozenset({"GREEK"})
ALIASES = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "HANGUL", "CJK": "CJK"}


def scripts_of(text: str) -> Iterable[str]:
    """The script of each letter: LATIN, CJK, CYRILLIC, ..."""
    for character in text:
        if character.isalpha():
            script = "LATIN" if character.isascii() else unicodedata.name(character, "OTHER").split()[0].split("-")[0]
            yield ALIASES.get(script, script)


def foreign_share(response: str, prompt: str) -> float:
    """Share of the response's letters whose script the prompt never uses; LaTeX and digits are no letters of note.

    >>> foreign_share("the sum 和 is", "What is the sum?")
    0.1111111111111111
    """
    known = set(scripts_of(prompt)) | ALWAYS_FINE | {"LATIN"}  # LaTeX commands and variables are Latin everywhere
    found = list(scripts_of(response))
    return sum(script not in known for script in found) / len(found) if found else 0.0


def language_mix(completions: list[Any], prompts: list[Any], **kwargs: Any) -> list[float | None]:
    """Minus the share of foreign letters, from -1 to 0."""
    return [
        -foreign_share(completion_text(completion), prompt_text(prompt)) + 0.0
        for completion, prompt in zip(completions, prompts, strict=True)
    ]


def prompt_text(prompt: str | list[dict[str, Any]]) -> str:
    """All text of a prompt, messages or string."""
    if isinstance(prompt, str):
        return prompt
    parts: list[str] = []
    for message in prompt:
        content = message.get("content") or ""
        parts += [content] if isinstance(content, str) else [block.get("text") or "" for block in content]
    return "\n".join(parts)
