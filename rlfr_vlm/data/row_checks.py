"""Checks of a converted row: values that would train the policy on a wrong answer or a wrong prompt.

A value that has one meaning is converted (a Decimal, a date, the index of an option); any other is a bad row.
"""

import datetime
import decimal
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import BadRow, Row

MISSING_WORDS = frozenset(["nan", "NaN", "None", "N/A", "null", "NULL", "NaT", "<NA>"])  # how tables write no value
PROMPT_ROLES = ("system", "user", "assistant", "tool")
TEMPLATE_TOKENS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|begin_of_text|start_header_id|end_header_id|user|assistant)\|>"
    r"|</?s>|<(?:start|end)_of_turn>|\[/?INST\]"
)
OTHER_MARKERS = re.compile(r"<image[ _]\d+>|<IMAGE>|<Image>|\[IMG\]|\[IMAGE\]|<img>|<ImageHere>")
INDEX, HIDDEN_OPTIONS, NO_FORMAT = "index", "hidden options", "no answer format"
NOTES = {
    INDEX: "{rows} have the index of an option as answer; indices are 0-based, and became letters",
    HIDDEN_OPTIONS: "{rows} have options that their prompts do not show; write them into the prompt",
    NO_FORMAT: "prompts ask for no answer format; the grader reads \\boxed{{}}, <answer> tags and phrases such as "
    "`The answer is`, and other responses count as without an answer: ask for one, e.g. by system_prompt",
}
ANSWER_FORMATS = re.compile(
    r"boxed|</?answer>|answer is|answer:|final answer|####|\banswer\b.{0,40}\b(?:end|line|format)", re.I
)
LETTER_AND_TEXT = re.compile(r"\(?([A-Za-z])\)?[.):]?(?:\s+(.*))?", re.DOTALL)


def check_messages(messages: Any) -> None:
    """Check roles and contents of a prompt's messages.

    Raises:
        BadRow: an unknown role, a prompt without a user's turn or that ends in another turn, content of another type.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRow("prompt", f"the prompt is {_short(messages)}; it must be a text or a list of messages")
    for message in messages:
        if not isinstance(message, dict):
            raise BadRow("prompt", f"a message is {_short(message)}; it must have a role and a content")
        role, content = message.get("role"), message.get("content")
        if role not in PROMPT_ROLES:
            raise BadRow("prompt", f"a message has the role {role!r}; known: {', '.join(PROMPT_ROLES)}")
        if not isinstance(content, str | list):
            raise BadRow("prompt", f"the content of a {role} message is {_short(content)}")
        for block in content if isinstance(content, list) else ():
            _check_block(block, str(role))
    if messages[-1]["role"] not in ("user", "tool"):
        last = messages[-1]["role"]
        why = "the policy would be shown an answer" if last == "assistant" else "there is nothing to answer"
        raise BadRow("prompt", f"the prompt ends in a turn of {last}, so {why}; it must end in a turn of user")


def _check_block(block: Any, role: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in ("text", "image"):
        raise BadRow("prompt", f"a content block is {_short(block)}; known types: text, image, image_url")
    if kind == "text" and not isinstance(block.get("text"), str):
        raise BadRow("prompt", f"the text of a {role} message is {_short(block.get('text'))}")


def check_text(text: str, has_images: bool, vision_tokens: Sequence[str] = ()) -> None:
    """Check the text of a prompt.

    Args:
        vision_tokens: tokens that stand for images in the policy's vocabulary.

    Raises:
        BadRow: no visible character, a token of a chat template or of images, or another tool's image marker.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("text", f"the prompt has a lone surrogate: {error}") from None
    if not any(_is_visible(character) for character in text):
        raise BadRow("prompt", "the prompt is blank")
    if token := next((token for token in vision_tokens if token in text), None):
        raise BadRow("image places", f"the text has {token}; mark images with <image>")
    if match := TEMPLATE_TOKENS.search(text):
        raise BadRow("text", f"the text has {match[0]}, a token of chat templates, which would end or begin a turn")
    if has_images and (match := OTHER_MARKERS.search(text)):
        raise BadRow("image places", f"the text has {match[0]}, which is left as text; mark images with <image>")


def notes_of(row: Row, answer: object) -> list[str]:
    """Return what a reader of the data set should know about a good row, as keys of `NOTES`.

    Args:
        row: the checked row.
        answer: its answer before it was checked; None where no answer is needed.
    """
    text = "\n".join(message["content"] for message in flatten_text(row["prompt"]))
    by_index = type(answer) is int and bool(row.get("options")) and row["answer"] in ascii_uppercase
    without_format = answer is not None and not ANSWER_FORMATS.search(text)
    conditions = {INDEX: by_index, HIDDEN_OPTIONS: hides_options(row, text), NO_FORMAT: without_format}
    return [note for note, holds in conditions.items() if holds]


def describe_notes(counts: Mapping[str, int], rows: str = "rows") -> list[str]:
    """Return a line for each note, with the number of its rows."""
    return [f"note: {count} {NOTES[note].format(rows=rows)}" for note, count in counts.items() if count]


def _is_visible(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) not in ("Cf", "Cc", "Zl", "Zp")


def clean_answer(row: Row) -> object:
    """Return the row's answer in a form that the grader reads; the index of an option becomes its letter.

    Raises:
        BadRow: the answer is missing, not finite, of another type, or no option.
    """
    answer, options = row["answer"], row.get("options")
    golds = [_clean_gold(gold) for gold in (answer if isinstance(answer, list | tuple) else [answer])]
    if options:
        golds = [_option_gold(gold, options) for gold in golds]
    elif row.get("answer_type") == "option" and not all(LETTER_AND_TEXT.fullmatch(str(gold)) for gold in golds):
        raise BadRow("options", f"answer_type is option without options, and the answer is {_short(answer)}")
    return golds if isinstance(answer, list | tuple) else golds[0]


def _clean_gold(gold: Any) -> str | int | float | bool:
    if isinstance(gold, decimal.Decimal):
        gold = format(gold, "f") if gold.is_finite() else math.nan
    elif isinstance(gold, datetime.date | datetime.time):
        gold = gold.isoformat()
    if isinstance(gold, float) and not math.isfinite(gold):
        raise BadRow("answer", f"the answer is {gold}, not a finite number")
    if isinstance(gold, str) and gold.strip() in MISSING_WORDS:
        raise BadRow("answer", f"the answer is {gold!r}, which marks a missing value")
    if not isinstance(gold, str | int | float):
        raise BadRow("answer", f"the answer is {_short(gold)}; it must be a text, a number or a list of them")
    return gold


def _option_gold(gold: str | int | float | bool, options: Sequence[str]) -> str | int | float | bool:
    """Return the gold of a multiple-choice question: a letter, or the text of an option."""
    letters = ascii_uppercase[: len(options)]
    text = str(gold).strip()
    by_text = [letter for letter, option in zip(letters, options, strict=True) if _plain(option) == _plain(text)]
    by_text = by_text or [letters[index] for index, option in enumerate(options) if _same(option, text)]
    if type(gold) is int:
        by_index = letters[gold] if 0 <= gold < len(options) else ""
        if by_text and by_index and by_text != [by_index]:
            raise BadRow("options", f"the answer {gold} is both an option and the index of another one")
        if not by_text and not by_index:
            raise BadRow("options", f"the answer {gold} is no option and no index of one, which begin at 0")
        return by_text[0] if by_text else by_index
    if by_text:
        return gold
    match = LETTER_AND_TEXT.fullmatch(text)
    if match and match[1].upper() in letters:
        letter, rest = match[1].upper(), match[2]
        if not rest:
            return gold
        if _same(rest, options[letters.index(letter)]):
            return letter
    raise BadRow("options", f"the answer {text[:80]!r} is none of the {len(options)} options")


def check_options(options: Sequence[str]) -> None:
    """Check the options of a multiple-choice question.

    Raises:
        BadRow: more than 26 options, an empty one, or two that are equal.
    """
    if len(options) > len(ascii_uppercase):
        raise BadRow("options", f"the row has {len(options)} options, more than there are letters")
    texts = [_plain(option) for option in options]
    if "" in texts:
        raise BadRow("options", "an option is empty")
    if twice := next((text for text in texts if texts.count(text) > 1), None):
        raise BadRow("options", f"two options are equal: {twice[:80]!r}")


def hides_options(row: Row, text: str) -> bool:
    """Whether a prompt does not show all the options of its row."""
    shown = _plain(text).lower()
    return any(_plain(option).lower() not in shown for option in row.get("options") or ())


def _plain(text: str) -> str:
    """Return a text without spaces and `$`, in which spellings of an option differ."""
    return re.sub(r"[\s$]", "", text)


def _same(first: str, second: str) -> bool:
    return _plain(first).lower() == _plain(second).lower()


def _short(value: object) -> str:
    kind = {dict: "an object", list: "a list", type(None): "null"}.get(type(value))
    if isinstance(value, Mapping) and "type" in value:
        return f"an object of type {value['type']!r}"
    return kind or f"{value!r:.60} ({type(value).__name__})"
