"""Build prompt messages for training, fitting and evaluation."""

from collections.abc import Sequence

from rlfr_vlm.data.rows import Block, Messages
from rlfr_vlm.errors import UserError

IMAGE_MARKER = "<image>"


def build_messages(prompt: str | Messages, num_images: int, system_prompt: str | None = None) -> Messages:
    """Convert a row's prompt to messages with one `{"type": "image"}` block per image.

    `<image>` markers in the text set the positions of the images. Without markers, all images are placed before the
    first user text. Image blocks in messages are kept. Without images, the contents are plain strings, because chat
    templates of text-only models require strings.

    Args:
        prompt: a question, or a list of messages with string or block contents.
        num_images: number of images of the row.
        system_prompt: system message to add, unless the prompt already has one.

    Raises:
        UserError: the number of markers or image blocks differs from the number of images.

    >>> build_messages("sum?", 1)
    [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'sum?'}]}]
    """
    source: Messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages: Messages = [dict(message) for message in source]
    for message in messages:
        message["content"] = _blocks(message.get("content"))
    num_places = sum(block["type"] == "image" for message in messages for block in message["content"])
    if num_places == 0 and num_images:
        user = next((message for message in messages if message["role"] == "user"), None)
        if user is None:
            raise UserError(f"A row has {num_images} image(s) but no user message to hold them.")
        user["content"] = [{"type": "image"}] * num_images + user["content"]
    elif num_places != num_images:
        raise UserError(f"A prompt has {num_places} image place(s) but its row has {num_images} image(s).")
    if system_prompt and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system_prompt}]})
    return messages if num_images else flatten_text(messages)


def _blocks(content: str | Sequence[Block] | None) -> list[Block]:
    """Return a message's content as blocks, with `<image>` markers replaced by image blocks."""
    if content is None:
        return []
    if isinstance(content, str):
        return _split_at_markers(content)
    blocks: list[Block] = []
    for block in content:
        if block["type"] == "image":
            # Image blocks must have no other keys: TRL inserts the images, and skips blocks that already have one.
            blocks.append({"type": "image"})
        elif IMAGE_MARKER in (block.get("text") or ""):
            blocks += _split_at_markers(block["text"])
        else:  # Keys with None come from Arrow, which gives all blocks the same keys.
            blocks.append({key: value for key, value in block.items() if value is not None})
    return blocks


def _split_at_markers(text: str) -> list[Block]:
    blocks: list[Block] = []
    for index, part in enumerate(text.split(IMAGE_MARKER)):
        if index:
            blocks.append({"type": "image"})
        if part.strip() or (part and not blocks):
            blocks.append({"type": "text", "text": part})
    return blocks


def flatten_text(messages: Messages) -> Messages:
    """Return the messages with plain strings as contents. Image blocks are dropped."""
    return [
        {**message, "content": "".join(block.get("text", "") for block in _blocks(message["content"]))}
        for message in messages
    ]
