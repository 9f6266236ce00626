"""The one prompt builder: used by training, fitting and evaluation alike."""

from collections.abc import Sequence
from typing import Any

from rlfr_vlm.errors import UserError

IMAGE_MARKER = "<image>"
Messages = list[dict[str, Any]]


def build_messages(prompt: str | Messages, num_images: int, system_prompt: str | None = None) -> Messages:
    """Turn a row's prompt into messages with one `{"type": "image"}` block per image.

    `<image>` markers in the text say where the images go; without markers all images stand before the first user
    text. Messages that already hold image blocks are kept. Without images the contents are plain strings, which is
    what the chat templates of text-only models want.

    Args:
        prompt: a question, or a list of messages with string or block contents.
        num_images: how many images the row has.
        system_prompt: put first, unless the prompt has a system message of its own.

    Raises:
        UserError: markers or image blocks and images differ in number.

    >>> build_messages("sum?", 1)
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'sum?'}]}]
    """
    given: Messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages: Messages = [dict(message) for message in given]
    for message in messages:
        message["content"] = _blocks(message.get("content"))
    found = sum(block["type"] == "image" for message in messages for block in message["content"])
    if found == 0 and num_images:
        user = next((message for message in messages if message["role"] == "user"), None)
        if user is None:
            raise UserError(f"A row has {num_images} image(s) but no user message to hold them.")
        user["content"] = [{"type": "image"}] * num_images + user["content"]
    elif found != num_images:
        raise UserError(f"A prompt has {found} image place(s) but its row has {num_images} image(s).")
    if system_prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_prompt}]})
    return messages if num_images else flatten_text(messages)


def _blocks(content: str | Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    if content is None:
        return []
    if not isinstance(content, str):
        # An image's place must be bare: TRL fills it in, and takes one with a payload for filled. Arrow fills keys
        # that other blocks have with None.
        return [
            {"type": "image"}
            if block["type"] == "image"
            else {key: value for key, value in block.items() if value is not None}
            for block in content
        ]
    blocks: list[dict[str, Any]] = []
    for index, text in enumerate(content.split(IMAGE_MARKER)):
        if index:
            blocks.append({"type": "image"})
        if text.strip() or (text and not blocks):
            blocks.append({"type": "text", "text": text})
    return blocks


def flatten_text(messages: Messages) -> Messages:
    """Messages whose contents are plain strings; image blocks are dropped."""
    return [
        {**message, "content": "".join(block.get("text", "") for block in _blocks(message["content"]))}
        for message in messages
    ]
