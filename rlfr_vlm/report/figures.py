"""Figures by matplotlib: curves as PNG files, deviation quantiles for the page and as a file."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_bytes
from rlfr_vlm.page.html import data_uri

# Paul Tol's bright scheme, as in the page's script; right and wrong as everywhere in this project.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
OUTCOMES = {"right": "#228833", "wrong": "#AA3377", "undecided": "#BBBBBB"}
DASHES = ("-", "--", ":", "-.")
INKS = {"light": "#1b1d21", "dark": "#e6e8eb"}
COLUMNS = 3


def save_curves(charts: Sequence[dict[str, Any]], path: Path) -> None:
    """All charts on one PNG."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(charts) / COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, chart in zip(panels, charts, strict=False):
        for line in chart["lines"]:
            colour, dash = COLOURS[line["colour"] % len(COLOURS)], DASHES[line["dash"] % len(DASHES)]
            axes.plot(chart["steps"], _floats(line["values"]), color=colour, linestyle=dash,
                      label=_plain(line["label"]), marker="." if len(chart["steps"]) == 1 else None)  # fmt: skip
            if "low" in line:
                axes.fill_between(chart["steps"], _floats(line["low"]), _floats(line["high"]), color=colour, alpha=0.2)
        axes.set_title(_plain(chart["title"]), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(_plain(chart["unit"]), fontsize=8)
        axes.legend(fontsize=7)
    for axes in panels[len(charts) :]:
        axes.axis("off")
    write_bytes(path, encoded(figure))


def quantile_figure(rows: Sequence[dict[str, Any]], ink: str = INKS["light"]) -> Any:
    """Boxes of deviations, by class of token, right and wrong responses side by side."""
    from matplotlib.figure import Figure

    kinds = [kind for kind in ("digits", "operators", "words", "answer", "other")
             if any(row["class"] == kind for row in rows)]  # fmt: skip
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    outcomes = [name for name in OUTCOMES if any(row["outcome"] == name for row in rows)]
    for place, outcome in enumerate(outcomes):
        own = [row for row in rows if row["outcome"] == outcome]
        boxes = [dict(zip(("whislo", "q1", "med", "q3", "whishi"), row["quantiles"], strict=True), fliers=[])
                 for row in own]  # fmt: skip
        places = [kinds.index(row["class"]) + 0.26 * (place - (len(outcomes) - 1) / 2) for row in own]
        line = {"color": ink, "linewidth": 0.8}
        axes.bxp(boxes, positions=places, widths=0.22, showfliers=False, patch_artist=True, manage_ticks=False,
                 boxprops={"facecolor": OUTCOMES[outcome], "edgecolor": ink, "linewidth": 0.8},
                 medianprops={"color": ink}, whiskerprops=line, capprops=line)  # fmt: skip
        axes.plot([], [], color=OUTCOMES[outcome], linewidth=6, label=f"{outcome} responses")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylabel("deviation")
    legend = axes.legend(fontsize=8, framealpha=0)
    recolour(axes, legend, ink)
    return figure


def recolour(axes: Any, legend: Any, ink: str) -> None:
    """Axes, labels and legend in one colour, for a page's light or dark scheme."""
    axes.tick_params(colors=ink)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
    for text in legend.get_texts() if legend is not None else ():
        text.set_color(ink)


def for_both_schemes(draw: Any) -> dict[str, str]:
    """The figure that `draw(ink)` makes, as data URIs for the light and the dark scheme."""
    return {name: data_uri(encoded(draw(ink), transparent=True), "png") for name, ink in INKS.items()}


def encoded(figure: Any, transparent: bool = False) -> bytes:
    """The figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream) if not transparent else figure.savefig(
        stream, format="png", dpi=130, transparent=True
    )
    return stream.getvalue()


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
