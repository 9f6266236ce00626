"""Render a report page as one self-contained HTML file: template, style, scripts and compressed data.

The Content-Security-Policy lists the hashes of the page's scripts and styles, so nothing else runs and no request
leaves the page. Text from models and data is escaped by jinja2, or embedded as JSON that the scripts insert as text.
Charts are drawn by uPlot (MIT, 50 kB), which is fast on thousands of points and needs no external styles; Plotly would
add 4 MB to every page.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"


def render(
    template: str, data: object, *, scripts: Sequence[str], folders: Sequence[Path] = (), **context: object
) -> str:
    """Render a page.

    Args:
        template: file name in `folders` or in the templates of this package.
        data: JSON value (without NaN) that the scripts read.
        scripts: file names in the static folder of this package, in order.
        folders: further template folders, searched first.
        context: variables of the template.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sources = [_static(name) for name in scripts]
    style = "\n".join(_static(name) for name in ("uPlot.min.css", "page.css"))
    page = environment.get_template(template).render(
        # Unescaped: a test checks that no file of the package contains the end of a script or style element.
        scripts=[Markup(source) for source in sources],
        style=Markup(style),
        policy=Markup(_policy(sources, style)),
        data=Markup(compressed(data)),
        **context,
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # folder names may contain lone surrogates


def compressed(data: object) -> str:
    """Data as gzipped JSON in base64; equal data gives equal text."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # File names may contain lone surrogates, which UTF-8 cannot encode.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)).decode("ascii")


def data_uri(content: bytes, kind: str) -> str:
    """Data URI of an image file; `kind` is `png` or `jpeg`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


@cache
def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str], style: str) -> str:
    allowed = " ".join(_hash(source) for source in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
