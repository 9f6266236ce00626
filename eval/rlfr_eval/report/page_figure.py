"""The bar chart of an evaluation page: scores of all runs, with their intervals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlfr_vlm.page.figures import COLOURS, INKS, plain, recolour

if TYPE_CHECKING:
    from rlfr_eval.report.page import PagedRun

WIDEST = 40  # benchmarks


def score_figure(runs: "Sequence[PagedRun]", ink: str = INKS["light"]) -> Any:
    """Bars in percent, side by side for several runs; where no score may be quoted, its bounds as a dotted line."""
    from matplotlib.figure import Figure

    from rlfr_eval.report.page import quotable

    names = list(dict.fromkeys(name for run in runs for name in run.scores["benchmarks"]))[:WIDEST]
    figure = Figure(figsize=(min(14, 3 + 0.5 * len(names) * (1 + len(runs))), 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(runs)
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        for place, name in enumerate(names):
            one = run.scores["benchmarks"].get(name)
            if one is None or one.get("unscoreable"):
                continue
            at = place + width * (number - (len(runs) - 1) / 2)
            score = quotable(one)
            if score is None:
                axes.plot([at, at], [100 * one["lower"], 100 * one["upper"]], color=colour, linestyle=":", linewidth=2)
                continue
            low, high = one["ci95"]
            spread = [[100 * max(0.0, score - low)], [100 * max(0.0, high - score)]]
            axes.bar(at, 100 * score, width * 0.9, color=colour)
            axes.errorbar(at, 100 * score, yerr=spread, color=ink, capsize=3, linewidth=1)
        axes.bar(0, 0, color=colour, label=plain(run.name))  # for the legend, whatever was drawn
    axes.set_xticks(range(len(names)), [plain(name) for name in names], rotation=20 if len(names) > 5 else 0)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel("score, %")
    recolour(axes, axes.legend(fontsize=8, framealpha=0) if len(runs) > 1 else None, ink)
    return figure
