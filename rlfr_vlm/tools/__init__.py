"""Tools and environments that a policy may call while it responds, by name or import path.

A tool is a function with type hints and a docstring in Google's style, from which the chat template describes it to
the policy. An environment is a class with `reset(**row)`, whose other public methods are tools; TRL keeps one for each
response (https://huggingface.co/docs/trl/grpo_trainer, "Agent training").
"""

from collections.abc import Callable, Sequence
from typing import Any

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.rewards.custom import is_import_path, load_function
from rlfr_vlm.tools.calculator import calculator
from rlfr_vlm.tools.zoom import Zoom

TOOLS: dict[str, Callable[..., Any]] = {"calculator": calculator}
ENVIRONMENTS: dict[str, Callable[..., Any]] = {"zoom": Zoom}


def load_tools(names: Sequence[str]) -> list[Callable[..., Any]]:
    """Return the tools of the names.

    Raises:
        UserError: a name is unknown, or its function cannot be loaded.
    """
    return [_load(name, "tool", TOOLS) for name in names]


def load_environment(name: str) -> Callable[..., Any]:
    """Return what makes an environment: its class, or a function.

    Raises:
        UserError: the name is unknown, or it cannot be loaded.
    """
    return _load(name, "environment", ENVIRONMENTS)


def owns_reward(environment: object) -> bool:
    """Whether an environment, or one of several by name, scores its responses itself, with `get_reward`."""
    several = environment.values() if isinstance(environment, dict) else [environment]
    return any(callable(getattr(one, "get_reward", None)) for one in several)


def _load(name: str, kind: str, known: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    if name in known:
        return known[name]
    if not is_import_path(name):
        raise UserError(
            f"Unknown {kind} {name!r}; choose from {', '.join(known)}, or write `path/to/module.py:function`."
            f"{nearest(name, known)}"
        )
    return load_function(name, kind)
