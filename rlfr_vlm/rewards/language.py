"""Language-mix penalty: the share of letters whose script does not occur in the prompt."""

import unicodedata
from collections.abc import Iterable, Sequence

from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text, prompt_text

ALWAYS_ALLOWED = frozenset({"GREEK", "LATIN"})  # variables and LaTeX commands in every language
ALIASES = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HANGUL": "HANGUL", "CJK": "CJK"}


def scripts_of(text: str) -> Iterable[str]:
    """Yield the script of each letter: LATIN, CJK, CYRILLIC, ..."""
    for character in text:
        if character.isalpha():
            script = "LATIN" if character.isascii() else unicodedata.name(character, "OTHER").split()[0].split("-")[0]
            yield ALIASES.get(script, script)


def foreign_share(response: str, prompt: str) -> float:
    """Return the share of the response's letters in a script that is not in the prompt. Latin and Greek are allowed.

    >>> foreign_share("the sum 和 is", "What is the sum?")
    0.1111111111111111
    """
    allowed = set(scripts_of(prompt)) | ALWAYS_ALLOWED
    scripts = list(scripts_of(response))
    return sum(script not in allowed for script in scripts) / len(scripts) if scripts else 0.0


def language_mix(completions: Sequence[Completion], prompts: Sequence[Prompt], **kwargs: object) -> list[float | None]:
    """Return minus the share of foreign letters of each response, from -1 to 0."""
    return [
        -foreign_share(completion_text(completion), prompt_text(prompt)) + 0.0
        for completion, prompt in zip(completions, prompts, strict=True)
    ]
