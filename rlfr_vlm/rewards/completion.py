"""Text of prompts and completions, which TRL passes as strings or as lists of messages."""

from typing import TypeAlias

from rlfr_vlm.data.rows import Messages

Prompt: TypeAlias = str | Messages
Completion: TypeAlias = str | Messages


def completion_text(completion: Completion) -> str:
    """Return the text of a completion: the string, or the content of its last message, if the policy wrote that.

    With tools a completion has several messages, and the last one holds the answer.
    """
    if isinstance(completion, str):
        return completion
    last = completion[-1]
    return last["content"] or "" if last.get("role", "assistant") == "assistant" else ""


def prompt_text(prompt: Prompt) -> str:
    """Return all text of a prompt. Image blocks are skipped."""
    if isinstance(prompt, str):
        return prompt
    parts: list[str] = []
    for message in prompt:
        content = message.get("content") or ""
        parts += [content] if isinstance(content, str) else [block.get("text") or "" for block in content]
    return "\n".join(parts)
