"""Checks of a converted row: values that would train the policy on a wrong answer or a wrong prompt.

A value that has one meaning is converted (a Decimal, a date, the index of an option); any other is a bad row. Here are
the checks of messages, and notes on good rows; `text_checks.py` and `answer_checks.py` have the others of one row,
`across_rows.py` those that need all rows.
"""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from rlfr_vlm.data.answer_checks import final_answer, without_spaces
from rlfr_vlm.data.media_source import BASE64_LENGTH
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import MEDIA_KEYS, BadRow, Row, short
from rlfr_vlm.grading.letters import LETTERS

PROMPT_ROLES = ("system", "user", "assistant", "tool")
MESSAGE_KEYS = ("image", "images", "video", "videos", "audio", "audios")  # of a message, whose template ignores them
UNREAD_COLUMNS = ("audio", "audios")  # of a row, which only other tools read
INDEX, SOLUTION, HIDDEN_OPTIONS, NO_FORMAT = "index", "solution", "hidden options", "no answer format"
VIDEO_SETTINGS = (  # of qwen-vl-utils
    *("video_start", "video_end", "fps", "nframes", "min_frames", "max_frames", "min_pixels", "max_pixels"),
    *("total_pixels", "resized_height", "resized_width"),
)
NOTES = {
    INDEX: "{rows} have the index of an option as answer; indices are 0-based, and became letters",
    SOLUTION: "{rows} have a whole solution as answer; what stands behind ####, in a box or tags is the answer",
    HIDDEN_OPTIONS: "{rows} have options that their prompts do not show; write them into the prompt",
    NO_FORMAT: "prompts ask for no answer format; the grader reads \\boxed{{}}, <answer> tags and phrases such as "
    "`The answer is`, and other responses count as without an answer: ask for one, e.g. by system_prompt",
}
ANSWER_FORMATS = re.compile(
    r"boxed|</?answer>|answer is|answer:|final answer|####|\banswer\b.{0,40}\b(?:end|line|format)", re.I
)


def check_messages(messages: Any) -> None:
    """Check roles and contents of a prompt's messages.

    Raises:
        BadRow: an unknown role, a prompt without a user's turn or that ends in another turn, content of another type.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRow("prompt", f"the prompt is {short(messages)}; it must be a text or a list of messages")
    for message in messages:
        if not isinstance(message, dict):
            raise BadRow("prompt", f"a message is {short(message)}; it must have a role and a content")
        role, content = message.get("role"), message.get("content")
        if role not in PROMPT_ROLES:
            raise BadRow("prompt", f"a message has the role {role!r:.60}; known: {', '.join(PROMPT_ROLES)}")
        if not isinstance(content, str | list):
            raise BadRow("prompt", f"the content of a {role} message is {short(content)}")
        if key := next((key for key in MESSAGE_KEYS if message.get(key)), None):
            raise BadRow("prompt", f"a {role} message has the key {key}, which is not read; use blocks or the column")
        for block in content if isinstance(content, list) else ():
            _check_block(block, str(role))
    if messages[-1]["role"] not in ("user", "tool"):
        last = messages[-1]["role"]
        why = "the policy would be shown an answer" if last == "assistant" else "there is nothing to answer"
        raise BadRow("prompt", f"the prompt ends in a turn of {last}, so {why}; it must end in a turn of user")


def _check_block(block: Any, role: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in ("text", *MEDIA_KEYS):
        raise BadRow("prompt", f"a content block is {short(block)}; known types: text, image, video, image_url")
    if kind == "text" and not isinstance(block.get("text"), str):
        raise BadRow("prompt", f"the text of a {role} message is {short(block.get('text'))}")
    if kind in MEDIA_KEYS and not any(block.get(key) for key in MEDIA_KEYS[kind]):
        held = (key for key, value in block.items() if key not in ("type", "text") and isinstance(value, str | dict))
        if key := next(held, None):
            raise BadRow(
                "prompt", f"a block of type {kind} has the key {key}, not read; name it {MEDIA_KEYS[kind][0]}"
            )
    if kind == "video" and (key := next((key for key in VIDEO_SETTINGS if block.get(key) is not None), None)):
        raise BadRow(
            "prompt",
            f"a block of type video has the key {key}, not read; cut the file, or set video_fps, video_max_frames or "
            "video_max_pixels for all videos",
        )


def check_media_of_blocks(messages: Any, row: Row) -> None:
    """Check that blocks that name files name those of the row's columns, which are the ones that are used.

    Raises:
        BadRow: a block names another file.
    """
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    for kind in MEDIA_KEYS:
        named = [block.get(kind) for content in contents for block in content if block["type"] == kind]
        for block, value in zip(named, row.get(f"{kind}s") or (), strict=False):
            if _is_name(block) and _is_name(value) and PurePath(str(block)).name != PurePath(str(value)).name:
                raise BadRow("image places", f"a block names {block!r}, and the column {kind}s {value!r}")


def _is_name(image: object) -> bool:
    return isinstance(image, str) and len(image) < BASE64_LENGTH and not image.startswith("data:")


def check_columns_of_media(row: Row) -> None:
    """Check that a row has no sounds, which no policy here reads.

    Raises:
        BadRow: it has some.
    """
    if column := next((column for column in UNREAD_COLUMNS if row.get(column)), None):
        raise BadRow("prompt", f"the row has {column}, which is not read; only texts, images and videos are")


def notes_of(row: Row, answer: object) -> list[str]:
    """Return what a reader of the data set should know about a good row, as keys of `NOTES`.

    Args:
        row: the checked row.
        answer: its answer before it was checked; None where no answer is needed.
    """
    text = "\n".join(message["content"] for message in flatten_text(row["prompt"]))
    by_index = type(answer) is int and bool(row.get("options")) and row["answer"] in LETTERS
    without_format = answer is not None and not ANSWER_FORMATS.search(text)
    by_solution = isinstance(answer, str) and final_answer(answer) != answer
    conditions = {
        INDEX: by_index,
        SOLUTION: by_solution,
        HIDDEN_OPTIONS: hides_options(row, text),
        NO_FORMAT: without_format,
    }
    return [note for note, holds in conditions.items() if holds]


def describe_notes(counts: Mapping[str, int], rows: str = "rows") -> list[str]:
    """Return a line for each note, with the number of its rows."""
    return [f"note: {count} {NOTES[note].format(rows=rows)}" for note, count in counts.items() if count]


def hides_options(row: Row, text: str) -> bool:
    """Whether a prompt does not show all the options of its row."""
    shown = without_spaces(text).lower()
    return any(without_spaces(option).lower() not in shown for option in row.get("options") or ())
