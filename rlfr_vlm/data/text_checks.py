"""Checks of the texts of a row: what a reader of text and the policy's tokenizer would see in them."""

import re
import unicodedata
from collections.abc import Sequence

from rlfr_vlm.data.rows import BadRow

TEMPLATE_TOKENS = re.compile(
    r"<\|(?:[a-z]{2,}_\w+|endoftext|user|assistant|system|end|pad|tool|observation)\|>|<｜[^｜<>]{1,40}｜>"
    r"|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)
OTHER_MARKERS = re.compile(
    r"<\|?im(?:age|g)[ _-]?\d*\|?>|<image[ _-]?placeholder>|<ImageHere>|\[(?:img|image)[ _-]?\d*\]|<img\s[^<>]*>"
    r"|!\[[^\]\n]*\]\([^)\n]*\)",
    re.IGNORECASE,
)
LONE_MARKERS = re.compile(r"<\|?image[ _-]?\d+\|?>|<IMAGE>|\[(?:IMG|IMAGE)\]|<ImageHere>")  # also without an image
FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")  # letters and symbols that are drawn as nothing


def check_text(text: str, has_images: bool, vision_tokens: Sequence[str] = (), special: Sequence[str] = ()) -> None:
    """Check the text of a prompt.

    Args:
        vision_tokens: tokens that stand for images in the policy's vocabulary.
        special: the policy's special tokens.

    Raises:
        BadRow: a token of a chat template or of images, another tool's image marker, or a broken character.
    """
    check_encoding(text, "prompt")
    if token := next((token for token in vision_tokens if token in text), None):
        raise BadRow("image places", f"the text has {token}; mark images with <image>")
    if match := (OTHER_MARKERS if has_images else LONE_MARKERS).search(text):
        end = "mark images with <image>" if has_images else "the row has no image"
        raise BadRow("image places", f"the text has {match[0][:80]}, which is left as text; {end}")
    check_tokens(text, "text", special)


def check_question(text: str) -> None:
    """Check the text of a prompt's last turn.

    Raises:
        BadRow: it has no visible character.
    """
    if not is_visible(text):
        raise BadRow("prompt", "the prompt is blank: its last turn has no visible character")


def check_tokens(text: str, name: str, special_tokens: Sequence[str] = ()) -> None:
    """Check that a text has no token of chat templates, nor one of the policy's special tokens.

    Raises:
        BadRow: it has one, which the tokenizer would not read as text.
    """
    token = next((token for token in special_tokens if token in text), None)
    if token is None and (match := TEMPLATE_TOKENS.search(text)):
        token = match[0]
    if token is not None:
        raise BadRow("text", f"the {name} has {token}, a token of chat templates, which would end or begin a turn")


def check_encoding(text: str, name: str) -> None:
    """Check that a text can be encoded, and was decoded without loss.

    Raises:
        BadRow: the text has a lone surrogate, or the character that replaces bytes that are not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("text", f"the {name} has a lone surrogate: {error}") from None
    if (place := text.find("\ufffd")) >= 0:
        around = text[max(0, place - 20) : place + 20]
        raise BadRow("text", f"the {name} has the replacement of a byte that is not UTF-8, in {around!r}")


def check_response(response: str, special_tokens: Sequence[str] = ()) -> None:
    """Check an expert response.

    Raises:
        BadRow: it is blank, or has a token of chat templates.
    """
    check_encoding(response, "response")
    if not is_visible(response):
        raise BadRow("response", "the response is blank")
    check_tokens(response, "response", special_tokens)


def is_visible(text: str) -> bool:
    """Whether a text has a character that is seen: no space, mark, control, direction or filler."""
    return any(unicodedata.category(character)[0] in "LNPS" and character not in FILLERS for character in text)
