"""The bar chart of an evaluation page: scores of all runs with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_eval.report.table import reportable_score
from rlfr_vlm.files import JsonMapping
from rlfr_vlm.page.figures import COLOURS, INKS, plain, recolour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_BARS = 40  # benchmarks in the chart


@dataclass(frozen=True)
class PagedRun:
    """A run on a page.

    Attributes:
        name: name of the run on the page.
        run, scores: contents of run.json and scores.json.
    """

    name: str
    run: JsonMapping
    scores: JsonMapping


def score_figure(runs: Sequence[PagedRun], ink: str = INKS["light"]) -> "Figure":
    """Draw the scores in percent, side by side for several runs; bounds as a dotted line if there is no score."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for run in runs for name in run.scores["benchmarks"]))[:MAX_BARS]
    figure = Figure(figsize=(min(14, 3 + 0.5 * len(names) * (1 + len(runs))), 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for run_index, run in enumerate(runs):
        colour = COLOURS[run_index % len(COLOURS)]
        for name_index, name in enumerate(names):
            score = run.scores["benchmarks"].get(name)
            if score is None or score.get("unscoreable"):
                continue
            x = name_index + width * (run_index - (len(runs) - 1) / 2)
            accuracy = reportable_score(score)
            if accuracy is None:
                bounds = [100 * score["lower"], 100 * score["upper"]]
                axes.plot([x, x], bounds, color=colour, linestyle=":", linewidth=2)
                continue
            low, high = score["ci95"]
            error = [[100 * max(0.0, accuracy - low)], [100 * max(0.0, high - accuracy)]]
            axes.bar(x, 100 * accuracy, width * 0.9, color=colour)
            axes.errorbar(x, 100 * accuracy, yerr=error, color=ink, capsize=3, linewidth=1)
        axes.bar(0, 0, color=colour, label=plain(run.name))  # legend entry even if the run has no bar
    axes.set_xticks(range(len(names)), [plain(name) for name in names], rotation=20 if len(names) > 5 else 0)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("score, %")
    recolour(axes, axes.legend(fontsize=8, framealpha=0) if len(runs) > 1 else None, ink)
    return figure
