"""Build prompt messages for training, fitting and evaluation."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from rlfr_vlm.data.rows import Block, Messages
from rlfr_vlm.errors import UserError

MARKER = re.compile(r"<(image|video)>")


def build_messages(
    prompt: str | Messages, num_images: int, system_prompt: str | None = None, num_videos: int = 0
) -> Messages:
    """Convert a row's prompt to messages with one `{"type": "image"}` block per image, and the same for videos.

    `<image>` and `<video>` markers in the text set the positions. Without markers of a kind, all media of the kind
    are placed before the first user text. Blocks in messages are kept. Without media, the contents are plain strings,
    because chat templates of text-only models require strings.

    Args:
        prompt: a question, or a list of messages with string or block contents.
        num_images, num_videos: numbers of images and videos of the row.
        system_prompt: system message to add, unless the prompt already has one.

    Raises:
        UserError: the number of markers or blocks differs from the number of images or videos.

    >>> build_messages("sum?", 1)
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'sum?'}]}]
    """
    source: Messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages: Messages = [dict(message) for message in source]
    for message in messages:
        message["content"] = _blocks(message.get("content"))
    _place(messages, "video", num_videos)
    _place(messages, "image", num_images)
    if system_prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_prompt}]})
    return messages if num_images or num_videos else flatten_text(messages)


def _place(messages: Messages, kind: str, number: int) -> None:
    """Put blocks of a kind before the first user text, if the messages have none.

    Raises:
        UserError: there are other than `number` places, or no user message.
    """
    places = sum(block["type"] == kind for message in messages for block in message["content"])
    if places == 0 and number:
        user = next((message for message in messages if message["role"] == "user"), None)
        if user is None:
            raise UserError(f"A row has {number} {kind}(s) but no user message to hold them.")
        user["content"] = [{"type": kind} for _ in range(number)] + user["content"]
    elif places != number:
        raise UserError(f"A prompt has {places} {kind} place(s) but its row has {number} {kind}(s).")


def mapped_blocks(messages: Messages, function: Callable[[Block], Block]) -> Messages:
    """Return messages whose content blocks are those of `function`; contents that are texts stay."""
    return [
        {**message, "content": [function(block) for block in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def with_videos(messages: Messages, videos: Sequence[object]) -> Messages:
    """Return messages of `build_messages` with the videos in their blocks, in order."""
    remaining = iter(videos)
    return mapped_blocks(
        messages, lambda block: {"type": "video", "video": next(remaining)} if block["type"] == "video" else block
    )


def without_videos(messages: Messages) -> Messages:
    """Return messages with bare video blocks, as `build_messages` made them."""
    return mapped_blocks(messages, lambda block: {"type": "video"} if block["type"] == "video" else block)


def media_in(messages: Messages, kind: str) -> list[Any]:
    """Return the images or videos (`kind`) in the blocks of messages, in order."""
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return [block[kind] for content in contents for block in content if block["type"] == kind]


def videos_in(messages: Messages) -> list[Any]:
    """Return the videos in the blocks of messages, in order."""
    return media_in(messages, "video")


def _blocks(content: str | Sequence[Block] | None) -> list[Block]:
    """Return a message's content as blocks, with markers replaced by image and video blocks."""
    if content is None:
        return []
    if isinstance(content, str):
        return _split_at_markers(content)
    blocks: list[Block] = []
    for block in content:
        if block["type"] in ("image", "video"):
            # Image blocks must have no other keys: TRL inserts the images, and skips blocks that already have one.
            blocks.append({"type": block["type"]})
        elif MARKER.search(block.get("text") or ""):
            blocks += _split_at_markers(block["text"])
        else:  # Keys with None come from Arrow, which gives all blocks the same keys.
            blocks.append({key: value for key, value in block.items() if value is not None})
    return blocks


def _split_at_markers(text: str) -> list[Block]:
    blocks: list[Block] = []
    for index, part in enumerate(MARKER.split(text)):
        if index % 2:  # the name in a marker
            blocks.append({"type": part})
        elif part.strip() or (part and not blocks):
            blocks.append({"type": "text", "text": part})
    return blocks


def flatten_text(messages: Messages) -> Messages:
    """Return the messages with plain strings as contents. Images and videos are dropped."""
    return [
        {**message, "content": "".join(block.get("text", "") for block in _blocks(message["content"]))}
        for message in messages
    ]
