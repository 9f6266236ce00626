"""Token ids as the pieces of text a reader sees, and what kind of token each is.

Letters: T response tokens.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError

BROKEN = "�"  # stands for bytes that are no whole character
CLASSES = ("digits", "operators", "words", "answer", "other")
OPERATORS = frozenset("+-*/=<>^×÷·±∓≤≥≠≈∑∏∫√∝∞%|~→")
OPERATOR_COMMANDS = re.compile(r"^\\(times|div|cdot|pm|frac|sqrt|leq?|geq?|neq?|approx|sum|int|to)$")


class Pieces:
    """Decodes token by token; a character that is spread over several tokens stands whole at the first of them.

    Args:
        tokenizer: of the policy.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def of(self, ids: Sequence[int]) -> list[str]:
        """The pieces (T,) of a response; the tokens that only complete a character are empty."""
        pieces = [self._piece(token) for token in ids]
        start = 0
        while start < len(ids):
            end = start + 1
            if BROKEN in pieces[start]:
                end = self._end_of_character(ids, start)
                pieces[start] = self._decode(ids[start:end])
                pieces[start + 1 : end] = [""] * (end - start - 1)
            start = end
        return pieces

    def _end_of_character(self, ids: Sequence[int], start: int) -> int:
        """Where the character that begins in the token at `start` is whole; one token further where it never is."""
        for end in range(start + 2, min(start + 8, len(ids)) + 1):  # a character has at most four bytes
            if BROKEN not in self._decode(ids[start:end]):
                return end
        return start + 1

    def _piece(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._decode([token])
        return self._known[token]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def token_class(piece: str) -> str:
    r"""Digits, operators, words or other, by the piece alone; what is inside an answer is told by its place.

    >>> [token_class(piece) for piece in ("12", " +", " the", "\\frac", "\n", "<|im_end|>", "3x")]
    ['digits', 'operators', 'words', 'operators', 'other', 'other', 'words']
    """
    text = piece.strip()
    if text.startswith("<|") or not text:
        return "other"
    if text.replace(".", "").replace(",", "").isdigit():
        return "digits"
    if OPERATOR_COMMANDS.match(text) or all(character in OPERATORS for character in text):
        return "operators"
    return "words" if any(character.isalpha() for character in text) else "other"


def token_classes(pieces: Sequence[str]) -> list[str]:
    r"""Class of each token (T,); those inside \boxed{...} or <answer>...</answer> are the answer.

    >>> token_classes(["So", " \\boxed", "{", "1", "2", "}", "."])
    ['words', 'words', 'other', 'answer', 'answer', 'other', 'other']
    """
    text = "".join(pieces)
    inside = _answer_characters(text)
    classes, start = [], 0
    for piece in pieces:
        own = range(start, start + len(piece))
        start += len(piece)
        answer = bool(own) and all(place in inside for place in own)
        classes.append("answer" if answer else token_class(piece))
    return classes


def _answer_characters(text: str) -> set[int]:
    """Places between the braces of \\boxed, nested ones counted, and between answer tags."""
    inside: set[int] = set()
    for found in re.finditer(r"\\boxed\s*\{", text):
        depth, place = 1, found.end()
        while place < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        inside |= set(range(found.end(), place - (depth == 0)))
    for found in re.finditer(r"<answer>(.*?)(</answer>|$)", text, re.DOTALL):
        inside |= set(range(found.start(1), found.end(1)))
    return inside


def load_tokenizer(folders: Sequence[str | Path], named: str | None) -> Any:
    """The tokenizer of the first folder or hub id that has one, read from disk or the local cache.

    Args:
        folders: where it may be.
        named: the user's choice; nothing else is tried.

    Raises:
        UserError: none has one.
    """
    from transformers import AutoTokenizer

    tried = [named] if named else [str(folder) for folder in folders]
    for place in tried:
        try:
            return AutoTokenizer.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError):  # it has none, or none that can be read
            continue
    raise UserError(
        f"Cannot find the tokenizer that wrote the responses: tried {', '.join(tried) or 'nothing'}. Name the "
        "policy's folder with --tokenizer."
    )
