"""Stages of the quick start: find a policy, fit a flow field, train with each method, measure accuracy."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rlfr_vlm.correctness_auc import AucRow
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.data.rows import Row
from rlfr_vlm.deviation import ResponseDeviation
from rlfr_vlm.evaluate import Accuracy, Response
from rlfr_vlm.quickstart.policies import StartPolicy, start_policy
from rlfr_vlm.quickstart.recipe import QuickstartRecipe
from rlfr_vlm.quickstart.resume import check_settings
from rlfr_vlm.report.charts import ACCURACY
from rlfr_vlm.report.read_run import Run, read_run
from rlfr_vlm.sweep.definition import Sweep
from rlfr_vlm.sweep.final_values import FinalValues, unlike
from rlfr_vlm.sweep.results import Comparison, compare

MODES = ("sampled", "greedy")


@dataclass
class QuickstartResult:
    """Results of all stages.

    Attributes:
        sweep: methods, seeds and folders of the runs.
        start: where training starts.
        base: decoding mode (`MODES`) -> accuracy of the policy before training.
        trained: (method, seed) -> decoding mode -> accuracy.
        runs: (method, seed) -> contents of the run folder.
        held_out: evaluation metrics of the flow field.
        auc: statistic -> AUC of deviation against correctness, with its interval.
        rows: held-out rows.
        measured: the first held-out rows, each repeated for the responses to it.
        responses: sampled responses of the policy before training to `measured`.
        deviations: their deviations from the flow.
        seconds: stage -> wall time.
    """

    recipe: QuickstartRecipe
    sweep: Sweep
    start: StartPolicy = field(default_factory=lambda: StartPolicy("", "digits", was_cached=False))
    base: dict[str, Accuracy] = field(default_factory=dict)
    trained: dict[tuple[str, int], dict[str, Accuracy]] = field(default_factory=dict)
    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
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

    @property
    def seed(self) -> int:
        """First seed, which fitting and all evaluations use."""
        return self.sweep.seeds[0]

    def comparison(self) -> Comparison:
        """Compare the methods by the accuracy of the trained policies."""
        finals = FinalValues(
            {mode: mode for mode in MODES},
            "Held-out accuracy of the trained policies; means over seeds.",
            {key: {mode: scores[mode].value for mode in MODES} for key, scores in self.trained.items()},
            dict.fromkeys(self.sweep.methods, ACCURACY),
        )
        return compare(self.sweep.cells, self.sweep.seeds, finals, unlike(list(self.runs.values())))

    @property
    def peak_rss_mb(self) -> float:
        """Peak resident size of this process, in MB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes on macOS, kB on Linux


def run_quickstart(recipe: QuickstartRecipe, sweep: Sweep) -> QuickstartResult:
    """Run every stage. Configurations, metrics and weights are written to the folder of the sweep.

    Raises:
        UserError: the policy cannot be had, or the folder has results of other settings.
    """
    from rlfr_vlm.quickstart.stages import evaluate, fit, measure_deviations, train
    from rlfr_vlm.quickstart.time_left import TimeLeft

    result, out = QuickstartResult(recipe, sweep), sweep.out
    if recipe.resumes:
        check_settings(out, recipe, result.seed)
    with result.timed("warm_start"):
        result.start = start_policy(recipe, out)
    print(f"policy: {result.start.source}, trained on {result.start.task}")
    with result.timed("evaluate"):
        test = load_rows(result.start.task, split="test", limit=recipe.eval_rows, seed=result.seed)
        result.rows = [test[i] for i in range(len(test))]
        result.base = evaluate(result.start.name, out / "base", result)
    time_left = TimeLeft(len(sweep.runs), recipe.rl_steps, result.seconds["evaluate"])
    with result.timed("fit_flow"):
        flow = fit(out / "flow", result)
    with result.timed("evaluate"):
        measure_deviations(out / "base", flow, result)
    for run in sweep.runs:
        method, key = run.cell.method, (run.cell.name, run.seed)
        with result.timed(method):
            train(run, result, time_left)
        result.runs[key] = read_run(run.folder)
        with result.timed("evaluate"):
            scores = result.trained[key] = evaluate(str(run.folder), run.folder, result)
        time_left.finish_run()
        print(f"seed {run.seed} {method}: {', '.join(f'{mode} {describe(scores[mode])}' for mode in MODES)}")
    return result


def describe(score: Accuracy) -> str:
    """Accuracy as text; with no decided answer there is none."""
    return "none decided" if score.value is None else f"{score.value:.3f}"
