"""Alerts: known training problems detected in the logged metrics, and the file that records them.

Each check compares the mean of a metric over the last `WINDOW` logged steps with a limit, or with an earlier window.
An alert is raised when its problem appears, and again only after the problem has gone away.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_vlm.files import write_text

WINDOW = 10  # logged steps
ALERTS_FILE = "alerts.jsonl"
OLD_ALERTS_FILE = "watchdogs.jsonl"  # written by earlier versions, with the key "dog" instead of "alert"


@dataclass(frozen=True)
class Alert:
    """One line of `alerts.jsonl`.

    Attributes:
        step: the trainer's global step.
        name: which check raised it, a name in `CHECKS`.
        message: what is wrong and how to correct it.
    """

    step: int
    name: str
    message: str

    def to_line(self) -> str:
        return json.dumps({"step": self.step, "alert": self.name, "message": self.message}) + "\n"


def read_alerts(folder: Path) -> list[Alert]:
    """Read the alerts of a run folder, also one of an earlier version. Unreadable lines are skipped."""
    path = _find_file(folder)
    if path is None:
        return []
    alerts = (_parse_line(line) for line in path.read_bytes().splitlines())
    return [alert for alert in alerts if alert is not None]


def truncate_alerts(folder: Path, step: int) -> None:
    """Drop alerts raised after `step`. The file of an earlier version is converted to `alerts.jsonl`."""
    if _find_file(folder) is None:
        return
    write_text(folder / ALERTS_FILE, "".join(a.to_line() for a in read_alerts(folder) if 0 < a.step <= step))
    (folder / OLD_ALERTS_FILE).unlink(missing_ok=True)


def _find_file(folder: Path) -> Path | None:
    return next((path for name in (ALERTS_FILE, OLD_ALERTS_FILE) if (path := folder / name).exists()), None)


def _parse_line(line: bytes) -> Alert | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or type(entry.get("step")) is not int:
        return None
    return Alert(entry["step"], str(entry.get("alert", entry.get("dog", ""))), str(entry.get("message", "")))


@dataclass
class MetricHistory:
    """The first window and the last two windows of every metric.

    Attributes:
        window: logged steps per mean.
    """

    window: int = WINDOW
    _first: dict[str, list[float]] = field(default_factory=dict)
    _last: dict[str, deque[float]] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, object]) -> None:
        """Add one step's metrics, ignoring values that are NaN or not numbers."""
        for name, value in metrics.items():
            if isinstance(value, int | float) and value == value:
                first = self._first.setdefault(name, [])
                if len(first) < self.window:
                    first.append(float(value))
                self._last.setdefault(name, deque(maxlen=2 * self.window)).append(float(value))

    def last(self, name: str) -> float | None:
        """Mean over the last window, or None while it is not full."""
        values = list(self._last.get(name, ()))[-self.window :]
        return sum(values) / self.window if len(values) == self.window else None

    def previous(self, name: str) -> float | None:
        """Mean over the window before the last one, or None while there are fewer than two."""
        values = list(self._last.get(name, ()))
        return sum(values[: self.window]) / self.window if len(values) == 2 * self.window else None

    def first(self, name: str) -> float | None:
        """Mean over the first window, or None while there are fewer than two."""
        return None if self.previous(name) is None else sum(self._first[name]) / self.window

    def names(self, prefix: str) -> list[str]:
        """Names of the mean-reward metrics that start with `prefix`."""
        return _mean_rewards(self._last, prefix)


def _mean_rewards(names: Iterable[str], prefix: str) -> list[str]:
    return [name for name in names if name.startswith(prefix) and name.endswith("/mean")]


@dataclass
class AlertMonitor:
    """Runs all checks on every logged step.

    Attributes:
        window: logged steps per mean.
    """

    window: int = WINDOW

    def __post_init__(self) -> None:
        self._history = MetricHistory(self.window)
        self._active: set[str] = set()

    def observe(self, metrics: Mapping[str, object]) -> list[tuple[str, str]]:
        """Add one step's metrics and return (name, message) of each new alert.

        A check needs a full window of its metrics; checks that compare with an earlier window need two.
        """
        self._history.add(metrics)
        alerts = []
        for check in CHECKS:
            message = check.find_problem(self._history)
            if message is None:
                self._active.discard(check.name)
            elif check.name not in self._active:
                self._active.add(check.name)
                alerts.append((check.name, message))
        return alerts


@dataclass(frozen=True)
class LimitCheck:
    """Tests the mean of one metric over the last window.

    Attributes:
        test: whether a mean is a problem.
        message: text of the alert, a format string with `mean`.
        windows: number of full windows that it needs.
        former: metric that takes its place in runs of earlier versions, which lack it.
    """

    name: str
    metric: str
    test: Callable[[float], bool]
    message: str
    windows: int = 1
    former: str = ""

    def count_steps(self, logged: Mapping[str, int]) -> int | None:
        """Number of steps that it can judge by; None if the run logs no metric of this group.

        Args:
            logged: number of logged steps of each metric.
        """
        group, separator, _ = self.metric.partition("/")
        if separator and not any(name.startswith(f"{group}/") for name in logged):
            return None
        return logged.get(self.metric, 0) or logged.get(self.former, 0)

    def find_problem(self, history: MetricHistory) -> str | None:
        mean = history.last(self.metric)
        if mean is None and self.former:
            mean = history.last(self.former)
        return self.message.format(mean=mean) if mean is not None and self.test(mean) else None


@dataclass(frozen=True)
class HistoryCheck:
    """Compares windows of one or more metrics; attributes and `count_steps` are as those of `LimitCheck`.

    Attributes:
        find_problem: returns the text of the alert or None.
        count_steps: counts the steps that it can judge by.
    """

    name: str
    find_problem: Callable[[MetricHistory], str | None]
    count_steps: Callable[[Mapping[str, int]], int | None]
    windows: int = 2


def _format_without_accuracy(history: MetricHistory) -> str | None:
    outcome, previous_outcome = history.last("outcome/mean"), history.previous("outcome/mean")
    for name in history.names("rewards/format"):
        reward, previous_reward = history.last(name), history.previous(name)
        if outcome is None or previous_outcome is None or reward is None or previous_reward is None:
            continue
        if outcome < previous_outcome - 0.05 and reward > previous_reward + 0.05:
            return (
                f"the outcome fell from {previous_outcome:.2f} to {outcome:.2f} while {name.split('/')[1]} rose from "
                f"{previous_reward:.2f} to {reward:.2f}: the policy learns the format instead of the answers. "
                "Lower that reward's weight."
            )
    return None


def _entropy_collapse(history: MetricHistory) -> str | None:
    entropy, first = history.last("entropy"), history.first("entropy")
    if entropy is None or first is None or entropy >= 0.1 * first:
        return None
    return (
        f"entropy fell from {first:.3f} to {entropy:.3f}: the policy hardly explores any more. Lower learning_rate, "
        "raise epsilon_high, or go back to an earlier checkpoint."
    )


def _format_steps(logged: Mapping[str, int]) -> int | None:
    rewards = _mean_rewards(logged, "rewards/format")
    return min(max(logged[name] for name in rewards), logged.get("outcome/mean", 0)) if rewards else None


# Order in which alerts of the same step are reported.
CHECKS: tuple[LimitCheck | HistoryCheck, ...] = (
    HistoryCheck("format", _format_without_accuracy, _format_steps),
    LimitCheck(
        "repetition",
        "completions/repetitive",
        lambda mean: mean > 0.05,
        "{mean:.0%} of the responses repeat themselves. Add the reward `repetition`, or lower learning_rate.",
    ),
    LimitCheck(
        "truncation",
        "completions/clipped_ratio",
        lambda mean: mean > 0.5,
        "{mean:.0%} of the responses reach max_completion_length and are cut off. Raise it, or add the reward "
        "`length`.",
    ),
    HistoryCheck("entropy", _entropy_collapse, lambda logged: logged.get("entropy", 0)),
    LimitCheck(
        "gap",
        "rollout/effective_share",
        lambda mean: mean < 0.9,
        "after importance weighting, only {mean:.0%} of vLLM's responses count effectively: its policy differs from "
        "the trainer's. Use the same dtype on both sides; with rollout_ahead, lower learning_rate or turn it off.",
    ),
    LimitCheck(
        "flat",
        "frac_reward_zero_std",
        lambda mean: mean >= 0.99,
        "all responses of each group got the same reward, so nothing is learned. Check the grader with `rlfr grade` "
        "and the data with `rlfr check-data`, take easier or harder prompts, or raise num_generations.",
    ),
    LimitCheck(
        "flow",
        "flow/auc_within_group_mean",
        lambda mean: mean < 0.45,
        "wrong responses deviate less from the flow than right ones to the same prompt (AUC {mean:.2f}): the flow "
        "reward works against the outcome. Fit the field on data nearer to the task, or set flow_coef lower.",
        former="flow/auc_wrong_above_correct_mean",
    ),
    LimitCheck(
        "no answer",
        "grading/no_answer",
        lambda mean: mean > 0.9,
        "{mean:.0%} of the responses have no answer that the grader finds: it reads \\boxed{{}}, <answer> tags and "
        "phrases such as `The answer is`. Ask for one of them, e.g. by system_prompt, or raise max_completion_length.",
    ),
    LimitCheck(
        "reference",
        "rlpr/valid",
        lambda mean: mean < 0.1,
        "only {mean:.0%} of the responses have an answer in whose place the reference can stand, so most get no "
        "reward. Ask for \\boxed{{}} or <answer> tags, e.g. by system_prompt.",
    ),
    LimitCheck(
        "undecided",
        "outcome/undecided",
        lambda mean: mean > 0.05,
        "{mean:.0%} of the answers cannot be graded and teach nothing. `rlfr check-data` lists unreadable answers.",
    ),
)


@dataclass(frozen=True)
class Unjudged:
    """A check that could not judge at any step of a run.

    Attributes:
        steps: logged steps that have its metrics.
        needed: number of such steps that it needs.
    """

    name: str
    steps: int
    needed: int


def unjudged_checks(lines: Iterable[Mapping[str, object]]) -> list[Unjudged]:
    """Return the checks that the logged steps were too few for, without those whose group of metrics a run lacks.

    Args:
        lines: metrics of each logged step.
    """
    logged = Counter(
        name for line in lines for name, value in line.items() if isinstance(value, int | float) and value == value
    )
    unjudged = []
    for check in CHECKS:
        steps, needed = check.count_steps(logged), check.windows * WINDOW
        if steps is not None and steps < needed:
            unjudged.append(Unjudged(check.name, steps, needed))
    return unjudged
