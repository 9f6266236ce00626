"""Decode token ids one by one and classify the tokens.

Letters: T response tokens.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT_CHARACTER = "�"  # decoders write it for bytes that are not a complete character
# Tokens searched for the end of a character. UTF-8 needs at most 4 bytes per character; some tokens hold part of one.
MAX_CHARACTER_TOKENS = 8
OPERATORS = frozenset("+-*/=<>^×÷·±∓≤≥≠≈∑∏∫√∝∞%|~→")
OPERATOR_COMMANDS = re.compile(r"^\\(times|div|cdot|pm|frac|sqrt|leq?|geq?|neq?|approx|sum|int|to)$")


class TokenDecoder:
    """Decodes a response token by token.

    A character that spans several tokens is put into the text of its first token.

    Args:
        tokenizer: of the policy that wrote the response.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self._cache: dict[int, str] = {}

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Text (T,) of each token; empty for tokens that only complete a character."""
        texts = [self._text(token) for token in ids]
        start = 0
        while start < len(ids):
            end = start + 1
            if REPLACEMENT_CHARACTER in texts[start]:
                end = self._end_of_character(ids, start)
                texts[start] = self._decode(ids[start:end])
                texts[start + 1 : end] = [""] * (end - start - 1)
            start = end
        return texts

    def _end_of_character(self, ids: Sequence[int], start: int) -> int:
        """Index after the last token of the character that begins at `start`; `start + 1` if it never ends."""
        for end in range(start + 2, min(start + MAX_CHARACTER_TOKENS, len(ids)) + 1):
            if REPLACEMENT_CHARACTER not in self._decode(ids[start:end]):
                return end
        return start + 1

    def _text(self, token: int) -> str:
        if token not in self._cache:
            self._cache[token] = self._decode([token])
        return self._cache[token]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def token_class(token: str) -> str:
    r"""Class of a token by its text alone: digits, operators, words or other.

    >>> [token_class(token) for token in ("12", " +", " the", "\\frac", "\n", "<|im_end|>", "3x")]
    ['digits', 'operators', 'words', 'operators', 'other', 'other', 'words']
    """
    text = token.strip()
    if text.startswith("<|") or not text:
        return "other"
    if text.replace(".", "").replace(",", "").isdigit():
        return "digits"
    if OPERATOR_COMMANDS.match(text) or all(character in OPERATORS for character in text):
        return "operators"
    return "words" if any(character.isalpha() for character in text) else "other"


def token_classes(tokens: Sequence[str]) -> list[str]:
    r"""Class (T,) of each token of a response; tokens inside \boxed{...} or <answer>...</answer> are `answer`.

    >>> token_classes(["So", " \\boxed", "{", "1", "2", "}", "."])
    ['words', 'words', 'other', 'answer', 'answer', 'other', 'other']
    """
    answer = _answer_characters("".join(tokens))
    classes, start = [], 0
    for token in tokens:
        characters = range(start, start + len(token))
        start += len(token)
        in_answer = bool(characters) and all(index in answer for index in characters)
        classes.append("answer" if in_answer else token_class(token))
    return classes


def _answer_characters(text: str) -> set[int]:
    """Indices of the characters between the braces of \\boxed (which may be nested) and between answer tags."""
    indices: set[int] = set()
    for match in re.finditer(r"\\boxed\s*\{", text):
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        indices |= set(range(match.end(), end - (depth == 0)))
    for match in re.finditer(r"<answer>(.*?)(</answer>|$)", text, re.DOTALL):
        indices |= set(range(match.start(1), match.end(1)))
    return indices


def load_tokenizer(candidates: Sequence[str | Path], override: str | None) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of the first candidate that has one, from disk or the local cache.

    Args:
        candidates: folders or hub ids, in order of preference.
        override: the user's choice; if set, the candidates are not tried.

    Raises:
        UserError: no tokenizer could be loaded.
    """
    from transformers import AutoTokenizer

    names = [override] if override else [str(candidate) for candidate in candidates]
    for name in names:
        try:
            return AutoTokenizer.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError):  # raised for a missing or an unreadable tokenizer
            continue
    raise UserError(
        f"Cannot find the tokenizer that wrote the responses: tried {', '.join(names) or 'nothing'}. Name the "
        "policy's folder with --tokenizer."
    )
