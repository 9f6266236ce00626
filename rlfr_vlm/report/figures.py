"""Figures by matplotlib: curves as PNG files, deviation quantiles for the page and as a file."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_bytes
from rlfr_vlm.page.figures import COLOURS, INKS, encoded, plain, recolour

OUTCOMES = {"right": "#228833", "wrong": "#AA3377", "undecided": "#BBBBBB"}
DASHES = ("-", "--", ":", "-.")
COLUMNS = 3
MAPPED_TOKENS = 80


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
                      label=plain(line["label"]), marker="." if len(chart["steps"]) == 1 else None)  # fmt: skip
            if "low" in line:
                axes.fill_between(chart["steps"], _floats(line["low"]), _floats(line["high"]), color=colour, alpha=0.2)
        axes.set_title(plain(chart["title"]), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylabel(plain(chart["unit"]), fontsize=8)
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
    legend = axes.legend(fontsize=8, framealpha=0) if outcomes else None
    recolour(axes, legend, ink)
    return figure


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def timestep_figure(measured: dict[str, Any], ink: str = INKS["light"]) -> Any:
    """AUC by timestep, a line for each layer and one with interval for their mean."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    by_layer: dict[Any, list[dict[str, Any]]] = {}
    for row in measured["auc"]:
        if row["statistic"] == "mean" and row["auc"] is not None:
            by_layer.setdefault(row["layer"], []).append(row)
    for number, (layer, rows) in enumerate(by_layer.items()):
        whole = isinstance(layer, str)
        times, values = [row["timestep"] for row in rows], [row["auc"] for row in rows]
        colour = ink if whole else COLOURS[number % len(COLOURS)]
        axes.plot(times, values, color=colour, linewidth=2 if whole else 1, marker="o" if whole else ".",
                  label="mean of layers, 95 % interval" if whole else f"layer {layer}")  # fmt: skip
        if whole:
            low, high = zip(*(row["ci95"] or (row["auc"], row["auc"]) for row in rows), strict=True)
            axes.fill_between(times, low, high, color=colour, alpha=0.15)
    axes.axhline(0.5, color=ink, linewidth=0.8, linestyle=":")
    axes.set_xlabel("timestep")
    axes.set_ylabel("AUC, wrong above right")
    legend = axes.legend(fontsize=8, framealpha=0) if by_layer else None
    recolour(axes, legend, ink)
    return figure


def deviation_map(responses: Sequence[tuple[list[str], list[list[float]], float | None]], layers: list[int]) -> Any:
    """Deviation of each token in each layer, one panel per response of (pieces, deviations (L, T), score).

    Of longer responses the first `MAPPED_TOKENS` tokens.
    """
    from matplotlib.figure import Figure

    responses = [(pieces[:MAPPED_TOKENS], [row[:MAPPED_TOKENS] for row in rows], score)
                 for pieces, rows, score in responses]  # fmt: skip
    longest = max((len(pieces) for pieces, _, _ in responses), default=1)
    figure = Figure(figsize=(3 + 0.42 * longest, 1.3 * max(1, len(responses)) + 0.4), layout="constrained")
    panels = figure.subplots(max(1, len(responses)), 1, squeeze=False).flatten()
    known = [value for _, rows, _ in responses for row in rows for value in row if value]
    scale = {"vmin": min(known, default=0.0), "vmax": max(known, default=1.0), "cmap": "PuOr_r"}
    for axes, (pieces, deviations, score) in zip(panels, responses, strict=False):
        image = axes.imshow([[value or math.nan for value in row] for row in deviations], aspect="auto", **scale)
        axes.set_xticks(range(len(pieces)), [_label(piece) for piece in pieces], fontsize=6, family="monospace")
        axes.set_yticks(range(len(layers)), [f"layer {layer}" for layer in layers], fontsize=7)
        axes.set_title({1.0: "right", 0.0: "wrong"}.get(score, "undecided"), fontsize=8, loc="left")  # type: ignore[arg-type]
        axes.set_xlim(-0.5, longest - 0.5)
    if responses:
        figure.colorbar(image, ax=list(panels), label="deviation")
    return figure


def _label(piece: str) -> str:
    """A token as a tick label: spaces visible, nothing that matplotlib's font lacks or would interpret."""
    shown = "".join(c if c.isprintable() and c.isascii() else "·" for c in piece.replace(" ", "_"))
    return plain(shown[:12])
