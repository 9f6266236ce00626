"""Watch-dogs: what goes wrong in runs, said in plain words when it shows in the metrics.

Each dog looks at the last `WINDOW` logged steps, and some at the first ones beside them. A message is said once, and
again only after the trouble has gone.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

WINDOW = 10
Series = Callable[[str], list[float]]


@dataclass
class Watchdogs:
    """Keeps the metrics and barks.

    Attributes:
        window: logged steps that are looked at together.
    """

    window: int = WINDOW
    _first: dict[str, list[float]] = field(default_factory=dict)
    _last: dict[str, deque[float]] = field(default_factory=dict)
    _barking: set[str] = field(default_factory=set)

    def observe(self, metrics: Mapping[str, object]) -> list[tuple[str, str]]:
        """Take one step's metrics; return (dog, message) of what is new.

        A dog judges only when its metrics fill the window; those that compare with the start need two windows.
        """
        for name, value in metrics.items():
            if isinstance(value, int | float) and value == value:
                first = self._first.setdefault(name, [])
                if len(first) < self.window:
                    first.append(float(value))
                self._last.setdefault(name, deque(maxlen=2 * self.window)).append(float(value))
        said = []
        for name, dog in DOGS.items():
            message = dog(self)
            if message and name not in self._barking:
                said.append((name, message))
            (self._barking.add if message else self._barking.discard)(name)
        return said

    def last(self, name: str) -> float | None:
        """Mean over the window, None when it is not full."""
        values = list(self._last.get(name, ()))[-self.window :]
        return sum(values) / self.window if len(values) == self.window else None

    def before(self, name: str) -> float | None:
        """Mean over the window before the last one."""
        values = list(self._last.get(name, ()))
        return sum(values[: self.window]) / self.window if len(values) == 2 * self.window else None

    def first(self, name: str) -> float | None:
        """Mean over the first window, once there is a second one."""
        return None if self.before(name) is None else sum(self._first[name]) / self.window

    def names(self, prefix: str) -> list[str]:
        return [name for name in self._last if name.startswith(prefix) and name.endswith("/mean")]


def _format_instead_of_accuracy(dogs: Watchdogs) -> str | None:
    now, then = dogs.last("outcome/mean"), dogs.before("outcome/mean")
    for name in dogs.names("rewards/format"):
        form, formerly = dogs.last(name), dogs.before(name)
        if now is None or then is None or form is None or formerly is None:
            continue
        if now < then - 0.05 and form > formerly + 0.05:
            return (
                f"the outcome fell from {then:.2f} to {now:.2f} while {name.split('/')[1]} rose from {formerly:.2f} "
                f"to {form:.2f}: the policy learns the shape of answers, not answers. Lower that reward's weight."
            )
    return None


def _repetition(dogs: Watchdogs) -> str | None:
    share = dogs.last("completions/repetitive")
    if share is None or share <= 0.05:
        return None
    return f"{share:.0%} of the responses repeat themselves. Add the reward `repetition`, or lower learning_rate."


def _truncation(dogs: Watchdogs) -> str | None:
    share = dogs.last("completions/clipped_ratio")
    if share is None or share <= 0.5:
        return None
    return (
        f"{share:.0%} of the responses reach max_completion_length and are cut off. Raise it, or add the reward "
        "`length`."
    )


def _entropy_collapse(dogs: Watchdogs) -> str | None:
    now, start = dogs.last("entropy"), dogs.first("entropy")
    if now is None or start is None or now >= 0.1 * start:
        return None
    return (
        f"entropy fell from {start:.3f} to {now:.3f}: the policy hardly explores any more. Lower learning_rate, raise "
        "epsilon_high, or go back to an earlier checkpoint."
    )


def _gap(dogs: Watchdogs) -> str | None:
    share = dogs.last("rollout/effective_share")
    if share is None or share >= 0.9:
        return None
    return (
        f"vLLM's responses count only {share:.0%} when weighted to the trainer's policy: both differ. Compare with "
        "rollout: hf, or use the same dtype on both sides."
    )


def _flat(dogs: Watchdogs) -> str | None:
    share = dogs.last("frac_reward_zero_std")
    if share is None or share < 0.99:
        return None
    return (
        "in all groups all responses got the same reward, so nothing is learned. Check the grader with `rlfr grade` "
        "and the data with `rlfr check-data`, take easier or harder prompts, or raise num_generations."
    )


def _flow(dogs: Watchdogs) -> str | None:
    area = dogs.last("flow/auc_wrong_above_correct_mean")
    if area is None or area >= 0.45:
        return None
    return (
        f"wrong responses deviate less from the flow than right ones (AUC {area:.2f}): the flow reward works against "
        "the outcome. Fit the field on data nearer to the task, or set flow_coef lower."
    )


def _undecided(dogs: Watchdogs) -> str | None:
    share = dogs.last("outcome/undecided")
    if share is None or share <= 0.05:
        return None
    return (
        f"{share:.0%} of the answers cannot be judged and teach nothing. `rlfr check-data` lists unreadable answers."
    )


DOGS: dict[str, Callable[[Watchdogs], str | None]] = {
    "format": _format_instead_of_accuracy, "repetition": _repetition, "truncation": _truncation,
    "entropy": _entropy_collapse, "gap": _gap, "flat": _flat, "flow": _flow, "undecided": _undecided,
}  # fmt: skip
