"""Helpers for the figures of all pages: colours, light and dark scheme, PNG encoding."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlfr_vlm.page.html import data_uri

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend

# Paul Tol's bright colour scheme, the same as in charts.js.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
# Colour of axes and text in each colour scheme of a page.
INKS = {"light": "#1b1d21", "dark": "#e6e8eb"}


def recolour(axes: "Axes", legend: "Legend | None", ink: str) -> None:
    """Set the colour of axes, labels and legend."""
    axes.tick_params(colors=ink)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
    for text in legend.get_texts() if legend is not None else ():
        text.set_color(ink)


def for_both_schemes(draw: Callable[[str], "Figure"]) -> dict[str, str]:
    """Data URIs of the figure that `draw(ink)` returns, for the light and the dark scheme."""
    return {name: data_uri(encoded(draw(ink), transparent=True), "png") for name, ink in INKS.items()}


def encoded(figure: "Figure", transparent: bool = False) -> bytes:
    """Encode a figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    if transparent:
        figure.savefig(stream, format="png", dpi=130, transparent=True)
    else:
        FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def plain(text: str) -> str:
    """Escape text so that matplotlib does not parse it as mathematics."""
    return text.replace("$", r"\$")
