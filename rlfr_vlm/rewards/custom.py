"""Custom reward functions, loaded from `path/to/module.py:function` or a dotted path.

A custom function is called like every TRL reward function, with `prompts`, `completions`, `completion_ids`, every
column of the rows, and `step`, `truncated`, `per_token_logps` (None if the trainer has none), `trainer_state`,
`log_metric` and `log_extra`. It may be async. For each response it returns one of

- a number, or None if it cannot score the response;
- a dict of named numbers. Each is logged separately. The reward is the entry `reward` if present, else the sum;
- a list with one number per response token. These are added to the token rewards, like the flow's.
"""

import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

from rlfr_vlm.errors import UserError, nearest

Rewards: TypeAlias = list[float | None]
RewardFunction: TypeAlias = Callable[..., Any]  # returns Rewards, or an awaitable of Rewards if it is async
CustomFunction: TypeAlias = Callable[..., Any]  # its return value is validated by `wrap`
RewardArguments: TypeAlias = dict[str, Any]  # the keyword arguments that TRL passes
TokenValues: TypeAlias = list[list[float] | None]


@runtime_checkable
class Array(Protocol):
    """A tensor or an array."""

    def tolist(self) -> object: ...
    def __iter__(self) -> Iterator[object]: ...


def is_import_path(name: str) -> bool:
    """Return whether a reward's name is a path to load a function from."""
    return ":" in name or "." in name


def load_function(name: str, kind: str = "reward") -> CustomFunction:
    """Import the function `module.py:function`, `package.module:function` or `package.module.function`.

    Args:
        kind: what the function is, for messages.

    Raises:
        UserError: the file, module or function does not exist, or it is not callable.
    """
    source, _, attribute = name.rpartition(":") if ":" in name else name.rpartition(".")
    try:
        module = _load_file(Path(source)) if source.endswith(".py") else importlib.import_module(source)
    except (ImportError, OSError, SyntaxError, ValueError, TypeError) as error:
        raise UserError(
            f"Cannot load the {kind} {name!r}: {error}. Write `path/to/module.py:function` or "
            "`package.module.function`."
        ) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{source} has no function {attribute!r}.{nearest(attribute, functions)}")
    return function


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickling look the module up here
    spec.loader.exec_module(module)
    return module


def is_custom(reward: object) -> bool:
    """Return whether a reward is a user's function that is not wrapped yet.

    False for this package's rewards and for reward models, which TRL calls itself.
    """
    function = getattr(reward, "func", reward)  # of a partial
    own = (getattr(function, "__module__", None) or "").startswith("rlfr_vlm.rewards")
    return callable(reward) and not own and not hasattr(reward, "token_values") and not hasattr(reward, "parameters")


def wrap(function: CustomFunction, name: str | None = None) -> RewardFunction:
    """Adapt a custom function to TRL's convention. The result is async if the function is.

    Per-token values are stored in the attribute `token_values` of the result until the trainer reads them. The
    scalar reward of such a response is 0.
    """
    label: str = name or str(getattr(function, "__name__", "custom"))
    reward: Any  # a function with the attribute token_values

    def scalars(values: object, kwargs: RewardArguments) -> Rewards:
        checked = _check_count(values, kwargs["completion_ids"], label)
        reward.token_values = [_token_values(value) for value in checked]
        for value, ids in zip(reward.token_values, kwargs["completion_ids"], strict=True):
            if value is not None and len(value) != len(ids):
                raise UserError(
                    f"The reward {label} gave {len(value)} values for a response of {len(ids)} tokens. It must give "
                    "one value per response token (completion_ids)."
                )
        _log_components(checked, label, kwargs.get("log_metric"))
        _check_finite(checked, reward.token_values, label)
        return [_scalar(value) for value in checked]

    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004

        async def reward_async(**kwargs: object) -> Rewards:
            return scalars(await function(**_with_step(kwargs)), kwargs)

        reward = reward_async
    else:

        def reward_sync(**kwargs: object) -> Rewards:
            return scalars(function(**_with_step(kwargs)), kwargs)

        reward = reward_sync
    reward.__name__ = label
    reward.token_values = None
    return reward


def _with_step(kwargs: RewardArguments) -> RewardArguments:
    return {"step": getattr(kwargs.get("trainer_state"), "global_step", None), **kwargs}


def _check_count(values: object, completion_ids: Sequence[Sequence[int]], label: str) -> list[object]:
    checked = list(values) if isinstance(values, Sequence | Array) else None
    if checked is None or len(checked) != len(completion_ids):
        returned = f"{len(checked)} values" if checked is not None else type(values).__name__
        raise UserError(
            f"The reward {label} returned {returned} for {len(completion_ids)} responses; return one per response."
        )
    return checked


def _token_values(value: object) -> list[float] | None:
    """Return the per-token values that a function gave for a response; None if it gave something else."""
    if isinstance(value, Array):
        value = value.tolist()
    return [float(part) for part in value] if isinstance(value, list | tuple) else None


def _check_finite(values: Sequence[object], tokens: TokenValues, label: str) -> None:
    numbers = [number for row in tokens for number in row or []] + [_scalar(value) for value in values]
    if bad := [number for number in numbers if number is not None and not math.isfinite(number)]:
        raise UserError(f"The reward {label} gave {bad[0]}; rewards are finite numbers, or None for no score.")


def _components(value: Mapping[str, float | None]) -> dict[str, float]:
    """Return the named numbers of a response without those that are None."""
    return {key: float(number) for key, number in value.items() if number is not None}


def _scalar(value: Any) -> float | None:
    """Return the reward of a response: 0 for per-token values, None if there is no score."""
    if value is None:
        return None
    if isinstance(value, dict):
        components = _components(value)
        return (components["reward"] if "reward" in components else sum(components.values())) if components else None
    return 0.0 if _token_values(value) is not None else float(value)


def _log_components(values: Sequence[object], label: str, log_metric: Callable[[str, float], None] | None) -> None:
    if log_metric is None:
        return
    rows = [_components(value) for value in values if isinstance(value, dict)]
    for key in dict.fromkeys(key for row in rows for key in row):
        numbers = [row[key] for row in rows if key in row]
        log_metric(f"rewards/{label}/{key}", sum(numbers) / len(numbers))
    sums = [sum(tokens) for value in values if (tokens := _token_values(value)) is not None]
    if sums:
        log_metric(f"rewards/{label}/sum_over_tokens", sum(sums) / len(sums))
