"""One self-contained HTML file: template, style, scripts and compressed data; its policy forbids the network.

Scripts and styles are named in the Content-Security-Policy by their hashes; nothing else runs, and no request leaves
the page. Text of models and data reaches the page escaped (jinja2's autoescape) or as JSON that the script writes as
text. Charts are drawn by uPlot (MIT, 50 kB): made for time series, fast on thousands of points, needs no styles from
outside; Plotly would add 4 MB to every page.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent / "static"
TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, data: Any, *, scripts: Sequence[str], folders: Sequence[Path] = (), **context: Any) -> str:
    """The page as text.

    Args:
        template: name of a file in `folders` or in this package's templates.
        data: what the scripts read; JSON without NaN.
        scripts: names of files in this package's static folder, in order.
        folders: further folders of templates.
        context: what the template shows.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    sources = [_static(name) for name in scripts]
    style = "\n".join(_static(name) for name in ("uPlot.min.css", "page.css"))
    page = environment.get_template(template).render(
        # The files are ours, and none holds the end of a script or style element (see the test).
        scripts=[Markup(source) for source in sources], style=Markup(style),
        policy=Markup(_policy(sources, style)), data=Markup(compressed(data)), **context,
    )  # fmt: skip
    return page.encode("utf-8", "replace").decode("utf-8")  # a name of a folder may hold what is no UTF-8


def compressed(data: Any) -> str:
    """JSON, gzipped, in base64; the same data gives the same text."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    # a lone surrogate, which a file name may hold, has no UTF-8
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), compresslevel=6, mtime=0)).decode("ascii")


def decompressed(text: str) -> Any:
    """What `compressed` took."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def data_uri(content: bytes, kind: str) -> str:
    """An image inside the page."""
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
