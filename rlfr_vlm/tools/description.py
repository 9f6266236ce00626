"""How long the descriptions of tools make a prompt."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.encode import render_prompt, tokenizer_of

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass

NOT_CALLED = ("reset", "get_reward")  # methods of an environment that the policy does not see


def described_tokens(processing_class: "ProcessingClass", arguments: Mapping[str, Any]) -> int:
    """Tokens by which the chat template lengthens a prompt, to describe tools; a few less with a system message.

    Args:
        processing_class: whose template shows tools.
        arguments: of TRL's trainer: `tools` and `environment_factory`, where there are any.
    """
    tools: Sequence[Callable[..., Any]] = arguments.get("tools") or []
    environment = arguments.get("environment_factory")
    tools = [*tools, *(_methods(environment()) if environment else [])]
    if not tools:
        return 0
    prompt = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
    texts = [render_prompt(processing_class, prompt, {"tools": tools}), render_prompt(processing_class, prompt)]
    described, plain = tokenizer_of(processing_class)(texts, add_special_tokens=False)["input_ids"]
    return len(described) - len(plain)


def _methods(environment: object) -> list[Callable[..., Any]]:
    """Public methods, which TRL lists in the same way."""
    names = [name for name, _ in inspect.getmembers(type(environment), predicate=inspect.isfunction)]
    return [getattr(environment, name) for name in names if name not in NOT_CALLED and not name.startswith("_")]
