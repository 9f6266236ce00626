"""A user's own reward function, from `path/to/module.py:function` or a dotted path.

It is called like every TRL reward function, with `prompts`, `completions`, `completion_ids`, every column of the
rows, and `step`, `truncated`, `per_token_logps` (None where the trainer has none), `trainer_state`, `log_metric` and
`log_extra`.
For each response it returns one of

- a number, or None when it cannot tell;
- a dict of named numbers, summed (or the entry `reward`, if there is one) and each logged on its own;
- a list of numbers, one per response token: these go into the token rewards, beside the flow's.

It may be async.
"""

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError, nearest

TokenValues = list[list[float] | None]


def is_path(name: str) -> bool:
    """Whether a reward's name is a place to load it from."""
    return ":" in name or "." in name


def load_function(name: str) -> Callable[..., Any]:
    """The function at `module.py:function`, `package.module:function` or `package.module.function`.

    Raises:
        UserError: no such file, module or function, or it is not callable.
    """
    place, _, function = name.rpartition(":") if ":" in name else name.rpartition(".")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise UserError(
            f"Cannot load the reward {name!r}: {error}. Write `path/to/module.py:function` or "
            "`package.module.function`."
        ) from None
    found = getattr(module, function, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{place} has no function {function!r}.{nearest(function, known)}")
    return found


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # for dataclasses and pickling inside it
    spec.loader.exec_module(module)
    return module


def wrap(function: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """A reward function in TRL's convention, sync or async as the original.

    Values per token are kept in its attribute `token_values` until the trainer takes them; their scalar is 0.
    """
    label: str = name or str(getattr(function, "__name__", "custom"))
    reward: Any

    def scalars(values: Any, kwargs: dict[str, Any]) -> list[float | None]:
        checked = _check_count(values, kwargs["completion_ids"], label)
        reward.token_values = [_tokens(value) for value in checked]
        for value, ids in zip(reward.token_values, kwargs["completion_ids"], strict=True):
            if value is not None and len(value) != len(ids):
                raise UserError(
                    f"The reward {label} gave {len(value)} values for a response of {len(ids)} tokens. It must give "
                    "one value per response token (completion_ids)."
                )
        _log_parts(checked, label, kwargs.get("log_metric"))
        _check_finite(checked, reward.token_values, label)
        return [_scalar(value) for value in checked]

    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

        async def reward_async(**kwargs: Any) -> list[float | None]:
            return scalars(await function(**_with_step(kwargs)), kwargs)

        reward = reward_async
    else:

        def reward_sync(**kwargs: Any) -> list[float | None]:
            return scalars(function(**_with_step(kwargs)), kwargs)

        reward = reward_sync
    reward.__name__ = label
    reward.token_values = None
    return reward


def _with_step(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"step": getattr(kwargs.get("trainer_state"), "global_step", None), **kwargs}


def _check_count(values: Any, completion_ids: Sequence[Any], label: str) -> list[Any]:
    checked = list(values) if isinstance(values, Sequence) or hasattr(values, "tolist") else None
    if checked is None or len(checked) != len(completion_ids):
        got = f"{len(checked)} values" if checked is not None else type(values).__name__
        raise UserError(
            f"The reward {label} returned {got} for {len(completion_ids)} responses; return one per response."
        )
    return checked


def _tokens(value: Any) -> list[float] | None:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return [float(part) for part in value] if isinstance(value, list | tuple) else None


def _check_finite(values: Sequence[Any], tokens: TokenValues, label: str) -> None:
    found = [number for own in tokens for number in own or []] + [_scalar(value) for value in values]
    if bad := [number for number in found if number is not None and not math.isfinite(number)]:
        raise UserError(f"The reward {label} gave {bad[0]}; rewards are finite numbers, or None when it cannot tell.")


def _named(value: dict[str, Any]) -> dict[str, float]:
    """Named numbers, without those it could not tell."""
    return {key: float(number) for key, number in value.items() if number is not None}


def _scalar(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, dict):
        named = _named(value)
        return (named["reward"] if "reward" in named else sum(named.values())) if named else None
    return 0.0 if _tokens(value) is not None else float(value)


def _log_parts(values: Sequence[Any], label: str, log_metric: Callable[[str, float], None] | None) -> None:
    if log_metric is None:
        return
    named = [_named(value) for value in values if isinstance(value, dict)]
    for key in dict.fromkeys(key for value in named for key in value):
        found = [value[key] for value in named if key in value]
        log_metric(f"rewards/{label}/{key}", sum(found) / len(found))
    sums = [sum(tokens) for value in values if (tokens := _tokens(value)) is not None]
    if sums:
        log_metric(f"rewards/{label}/sum_over_tokens", sum(sums) / len(sums))
