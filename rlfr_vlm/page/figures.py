"""What the figures of all pages share: colours, both colour schemes, PNG."""

import io
from collections.abc import Callable
from typing import Any

from rlfr_vlm.page.html import data_uri

COLOURS = (
    "#4477AA",
    "#EE6677",
    "#228833",
    "#CCBB44",
    "#66CCEE",
    "#AA3377",
)  # Paul Tol's bright scheme, as in charts.js
INKS = {"light": "#1b1d21", "dark": "#e6e8eb"}


def recolour(axes: Any, legend: Any, ink: str) -> None:
    """Axes, labels and legend in one colour, for a page's light or dark scheme."""
    axes.tick_params(colors=ink)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
    for text in legend.get_texts() if legend is not None else ():
        text.set_color(ink)


def for_both_schemes(draw: Callable[[str], Any]) -> dict[str, str]:
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


def plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
