"""Draw the figures of the report pages with matplotlib.

Letters: L hooked layers, T response tokens.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.files import JsonObject, write_bytes
from rlfr_vlm.page.figures import COLOURS, INKS, encoded, plain, recolour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOKEN_CLASSES = ("digits", "operators", "words", "answer", "other")
OUTCOMES = {"right": "#228833", "wrong": "#AA3377", "undecided": "#BBBBBB"}
DASHES = ("-", "--", ":", "-.")
COLUMNS = 3  # charts per row of the PNG
MAPPED_TOKENS = 80  # tokens per deviation map; more tick labels would be unreadable


def save_curves(charts: Sequence[JsonObject], path: Path) -> None:
    """Draw all charts into one PNG file."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(charts) / COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axes, chart in zip(panels, charts, strict=False):
        for line in chart["lines"]:
            colour, dash = COLOURS[line["colour"] % len(COLOURS)], DASHES[line["dash"] % len(DASHES)]
            axes.plot(
                chart["steps"],
                _floats(line["values"]),
                color=colour,
                linestyle=dash,
                label=plain(line["label"]),
                marker="." if len(chart["steps"]) == 1 else None,  # a single point draws no line
            )
            if "low" in line:
                axes.fill_between(chart["steps"], _floats(line["low"]), _floats(line["high"]), color=colour, alpha=0.2)
        axes.set_title(plain(chart["title"]), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(plain(chart["unit"]), fontsize=8)
        axes.legend(fontsize=7)
    for axes in panels[len(charts) :]:
        axes.axis("off")
    write_bytes(path, encoded(figure))


def quantile_figure(rows: Sequence[JsonObject], ink: str = INKS["light"]) -> "Figure":
    """Draw boxes of deviations by token class, right and wrong responses side by side.

    Args:
        rows: as `RolloutPage.deviations_by_class` returns them.
        ink: colour of axes and text.
    """
    from matplotlib.figure import Figure

    classes = [name for name in TOKEN_CLASSES if any(row["class"] == name for row in rows)]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    outcomes = [name for name in OUTCOMES if any(row["outcome"] == name for row in rows)]
    for index, outcome in enumerate(outcomes):
        outcome_rows = [row for row in rows if row["outcome"] == outcome]
        boxes = [
            dict(zip(("whislo", "q1", "med", "q3", "whishi"), row["quantiles"], strict=True), fliers=[])
            for row in outcome_rows
        ]
        offset = 0.26 * (index - (len(outcomes) - 1) / 2)
        line = {"color": ink, "linewidth": 0.8}
        axes.bxp(
            boxes,
            positions=[classes.index(row["class"]) + offset for row in outcome_rows],
            widths=0.22,
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": OUTCOMES[outcome], "edgecolor": ink, "linewidth": 0.8},
            medianprops={"color": ink},
            whiskerprops=line,
            capprops=line,
        )
        axes.plot([], [], color=OUTCOMES[outcome], linewidth=6, label=f"{outcome} responses")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_ylabel("deviation")
    legend = axes.legend(fontsize=8, framealpha=0) if outcomes else None
    recolour(axes, legend, ink)
    return figure


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def timestep_figure(summary: JsonObject, ink: str = INKS["light"]) -> "Figure":
    """Draw the AUC by timestep: one line per layer, and one with its interval for the mean over layers.

    Args:
        summary: as `Inspection.summary` returns it.
        ink: colour of axes, text and the line of the mean.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    by_layer: dict[int | str, list[JsonObject]] = {}
    for row in summary["auc"]:
        if row["statistic"] == "mean" and row["auc"] is not None:
            by_layer.setdefault(row["layer"], []).append(row)
    for index, (layer, rows) in enumerate(by_layer.items()):
        all_layers = isinstance(layer, str)
        times, values = [row["timestep"] for row in rows], [row["auc"] for row in rows]
        colour = ink if all_layers else COLOURS[index % len(COLOURS)]
        axes.plot(
            times,
            values,
            color=colour,
            linewidth=2 if all_layers else 1,
            marker="o" if all_layers else ".",
            label="mean of layers, 95 % interval" if all_layers else f"layer {layer}",
        )
        if all_layers:
            low, high = zip(*(row["ci95"] or (row["auc"], row["auc"]) for row in rows), strict=True)
            axes.fill_between(times, low, high, color=colour, alpha=0.15)
    axes.axhline(0.5, color=ink, linewidth=0.8, linestyle=":")
    axes.set_xlabel("timestep")
    axes.set_ylabel("AUC, wrong above right")
    legend = axes.legend(fontsize=8, framealpha=0) if by_layer else None
    recolour(axes, legend, ink)
    return figure


def deviation_map(
    responses: Sequence[tuple[list[str], list[list[float]], float | None]], layers: Sequence[int]
) -> "Figure":
    """Draw the deviation of each token in each layer, one panel per response.

    Args:
        responses: (token texts, deviations (L, T), score); only the first `MAPPED_TOKENS` tokens are drawn.
        layers: the L hooked layers.
    """
    from matplotlib.figure import Figure

    responses = [
        (texts[:MAPPED_TOKENS], [row[:MAPPED_TOKENS] for row in rows], score) for texts, rows, score in responses
    ]
    longest = max((len(texts) for texts, _, _ in responses), default=1)
    figure = Figure(figsize=(3 + 0.42 * longest, 1.3 * max(1, len(responses)) + 0.4), layout="constrained")
    panels = figure.subplots(max(1, len(responses)), 1, squeeze=False).flatten()
    measured = [value for _, rows, _ in responses for row in rows for value in row if value]
    scale = {"vmin": min(measured, default=0.0), "vmax": max(measured, default=1.0), "cmap": "PuOr_r"}
    for axes, (texts, deviations, score) in zip(panels, responses, strict=False):
        image = axes.imshow([[value or math.nan for value in row] for row in deviations], aspect="auto", **scale)
        axes.set_xticks(range(len(texts)), [_tick_label(text) for text in texts], fontsize=6, family="monospace")
        axes.set_yticks(range(len(layers)), [f"layer {layer}" for layer in layers], fontsize=7)
        outcome = "undecided" if score is None else {1.0: "right", 0.0: "wrong"}.get(score, "undecided")
        axes.set_title(outcome, fontsize=8, loc="left")
        axes.set_xlim(-0.5, longest - 0.5)
    if responses:
        figure.colorbar(image, ax=list(panels), label="deviation")
    return figure


def _tick_label(text: str) -> str:
    """Token text with visible spaces and without characters that matplotlib's font lacks or would interpret."""
    shown = "".join(c if c.isprintable() and c.isascii() else "·" for c in text.replace(" ", "_"))
    return plain(shown[:12])
