"""Stages of the quick start: find a policy, fit a flow field, train with each method, measure accuracy."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_vlm.correctness_auc import AucRow
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.data.rows import Row
from rlfr_vlm.deviation import ResponseDeviation
from rlfr_vlm.evaluate import Accuracy, Response
from rlfr_vlm.quickstart.policies import StartPolicy, start_policy
from rlfr_vlm.quickstart.recipe import QuickstartRecipe
from rlfr_vlm.quickstart.resume import check_settings

LoggedStep = dict[str, float]
DEFAULT_METHODS = ("rlvr", "rlfr")


@dataclass
class QuickstartResult:
    """Results of all stages.

    Attributes:
        start: where training starts.
        base: decoding mode (`greedy`, `sampled`) -> accuracy of the policy before training.
        trained: seed -> method -> decoding mode -> accuracy.
        history: seed -> method -> logged steps.
        held_out: evaluation metrics of the flow field.
        auc: statistic -> AUC of deviation against correctness, with its interval.
        rows: held-out rows.
        measured: the first held-out rows, each repeated for the responses to it.
        responses: sampled responses of the policy before training to `measured`.
        deviations: their deviations from the flow.
        seconds: stage -> wall time.
    """

    recipe: QuickstartRecipe
    seeds: list[int]
    methods: tuple[str, ...] = DEFAULT_METHODS
    start: StartPolicy = field(default_factory=lambda: StartPolicy("", "digits", was_cached=False))
    base: dict[str, Accuracy] = field(default_factory=dict)
    trained: dict[int, dict[str, dict[str, Accuracy]]] = field(default_factory=dict)
    history: dict[int, dict[str, list[LoggedStep]]] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    auc: dict[str, AucRow] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    measured: list[Row] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    deviations: list[ResponseDeviation] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of the block to `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def pairs(self) -> list[tuple[str, str]]:
        """(method, reference) for each comparison; the reference is RLVR, or the first method."""
        reference = "rlvr" if "rlvr" in self.methods else self.methods[0]
        return [(method, reference) for method in self.methods if method != reference]

    @property
    def peak_rss_mb(self) -> float:
        """Peak resident size of this process, in MB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes on macOS, kB on Linux


def run_quickstart(
    out: Path, recipe: QuickstartRecipe, seeds: list[int], methods: tuple[str, ...] = DEFAULT_METHODS
) -> QuickstartResult:
    """Run every stage. Configurations, metrics and weights are written to `out`.

    Raises:
        UserError: the policy cannot be had, or `out` has results of other settings.
    """
    from rlfr_vlm.quickstart.stages import evaluate, fit, measure_deviations, train
    from rlfr_vlm.quickstart.time_left import TimeLeft

    if recipe.resumes:
        check_settings(out, recipe, seeds[0])
    result = QuickstartResult(recipe, seeds, methods)
    with result.timed("warm_start"):
        result.start = start_policy(recipe, out)
    print(f"policy: {result.start.source}, trained on {result.start.task}")
    with result.timed("evaluate"):
        test = load_rows(result.start.task, split="test", limit=recipe.eval_rows, seed=seeds[0])
        result.rows = [test[i] for i in range(len(test))]
        result.base = evaluate(result.start.name, out / "base", result)
    time_left = TimeLeft(len(seeds) * len(methods), recipe.rl_steps, result.seconds["evaluate"])
    with result.timed("fit_flow"):
        flow = fit(out / "flow", result)
    with result.timed("evaluate"):
        measure_deviations(out / "base", flow, result)
    for seed in seeds:
        for method in methods:
            run_folder = out / f"seed{seed}" / method
            with result.timed(method):
                history = train(run_folder, method, seed, result, time_left)
            with result.timed("evaluate"):
                scores = evaluate(str(run_folder), run_folder, result)
            time_left.finish_run()
            result.trained.setdefault(seed, {})[method] = scores
            result.history.setdefault(seed, {})[method] = history
            accuracies = ", ".join(f"{mode} {describe(scores[mode])}" for mode in ("sampled", "greedy"))
            print(f"seed {seed} {method}: {accuracies}")
    return result


def describe(score: Accuracy) -> str:
    """Accuracy as text; with no decided answer there is none."""
    return "none decided" if score.value is None else f"{score.value:.3f}"
