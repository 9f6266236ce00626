"""Gather the Markdown guides into a folder from which mkdocs builds one set of pages, and check their links.

    python scripts/lib/guides.py BUILD_FOLDER

The folder gets the guides and their pictures at the paths that they have in the repository, so that links between
guides stay as they are, and a `mkdocs.yml`. Links to other files of the repository become links to its web page, or
plain code while pyproject.toml names none.
"""

import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Path(__file__).resolve().with_name("mkdocs.yml")
WORKER = SETTINGS.with_name("iframe-worker.js")

# title in the navigation -> path in the repository
GUIDES = {
    "Overview": "README.md",
    "Training": "scripts/README.md",
    "Recipes for one GPU": "scripts/recipes_one_gpu.md",
    "What has run where": "scripts/status.md",
    "Rewards": "rlfr_vlm/rewards/README.md",
    "Model families": "rlfr_vlm/models/README.md",
    "Evaluation": "eval/README.md",
    "Benchmarks and speed": "benchmarks/README.md",
    "Where the signal is": "benchmarks/signal/README.md",
    "SmolLM2-135M, measured": "benchmarks/smollm2/README.md",
    "Speed log": "benchmarks/speed/LOG.md",
    "Architecture": "rlfr_vlm/README.md",
    "Tests": "tests/README.md",
    "Contributing": "CONTRIBUTING.md",
    "Changelog": "CHANGELOG.md",
}

LINK = re.compile(r'(!?)\[([^\[\]]*)\]\(([^()\s]+)(?: "[^"]*")?\)')
UNCHECKED = re.compile(r"<(?:a|img)\b|^ {0,3}\[[^\]]+\]:", re.IGNORECASE | re.MULTILINE)
FENCE = re.compile(r"^ *(```+|~~~+)[^\n]*\n.*?(?:^ *\1[`~]* *$|\Z)", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`)(?:(?!\n *\n).)+?(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)? *$", re.MULTILINE)
ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A link or picture of a guide.

    Attributes:
        start, end: its place in the guide's text.
        line: number of its first line, from 1.
        text: what is shown.
        path: the target without the anchor; empty for a place in the same guide.
        anchor: the heading's anchor, or an empty string.
        picture: whether it is shown as a picture.
    """

    start: int
    end: int
    line: int
    text: str
    path: str
    anchor: str
    picture: bool


def without_code(text: str) -> str:
    """Return text of the same length and lines, in which code and comments are blank.

    >>> without_code("a `b` [`c`](d)")
    'a     [   ](d)'
    """
    for pattern in (FENCE, COMMENT, CODE):
        text = pattern.sub(_blank, text)
    return text


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def links(text: str) -> Iterator[Link]:
    """Find links and pictures outside code, except addresses with a scheme, such as https."""
    for found in LINK.finditer(without_code(text)):
        if not ABSOLUTE.match(found[3]):
            path, _, anchor = found[3].partition("#")
            line = text.count("\n", 0, found.start()) + 1
            shown = text[found.start(2) : found.end(2)]
            yield Link(found.start(), found.end(), line, shown, path, anchor, bool(found[1]))


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to headings; mkdocs.yml asks for the same.

    >>> sorted(anchors("# Set-up, `a_b` & more\\n## Set-up\\n## Set-up\\n"))
    ['set-up', 'set-up-1', 'set-up-a_b--more']
    """
    seen: dict[str, int] = {}
    found = set()
    for heading in HEADING.finditer(without_code(text)):
        shown = LINK.sub(r"\2", text[heading.start(1) : heading.end(1)])
        name = re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found


def target(root: Path, guide: str, link: Link, guides: Mapping[str, str]) -> str:
    """Return the repository's path that a link names; of a folder with a guide the guide, which GitHub shows."""
    if not link.path:
        return guide
    path = os.path.relpath((root / guide).parent / link.path, root).replace(os.sep, "/")
    readme = os.path.normpath(f"{path}/README.md").replace(os.sep, "/")
    return readme if readme in guides.values() else path


def problems(root: Path = ROOT, guides: Mapping[str, str] = GUIDES) -> list[str]:
    """Return one line for each link that leads nowhere, with file and line."""
    found = []
    texts = {guide: (root / guide).read_text(encoding="utf-8") for guide in guides.values()}
    for guide, text in texts.items():
        for link in links(text):
            path = target(root, guide, link, guides)
            if path.split("/")[0] == ".." or link.path.startswith("/"):
                found.append(f"{guide}:{link.line}: {link.path} lies outside the repository")
            elif not (root / path).exists():
                found.append(f"{guide}:{link.line}: there is no {path}")
            elif path in texts and link.anchor and link.anchor not in anchors(texts[path]):
                found.append(f"{guide}:{link.line}: {path} has no heading for #{link.anchor}")
        for other in UNCHECKED.finditer(without_code(text)):
            line = text.count("\n", 0, other.start()) + 1
            found.append(f"{guide}:{line}: links that begin with {other[0]} are not checked; write [text](target)")
    return found


def repository_url(root: Path = ROOT) -> str:
    """Return the address of the repository in pyproject.toml, or an empty string."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    urls = {name.lower(): address for name, address in project.get("urls", {}).items()}
    return next((urls[name].rstrip("/") for name in ("repository", "source", "homepage") if name in urls), "")


def page(root: Path, guide: str, guides: Mapping[str, str] = GUIDES, repository: str = "") -> str:
    """Return the text of a guide as mkdocs gets it."""
    text = (root / guide).read_text(encoding="utf-8")
    parts, end = [], 0
    for link in links(text):
        path = target(root, guide, link, guides)
        parts += [text[end : link.start], _rewritten(link, path, guide, guides, repository)]
        end = link.end
    return _unescape_pipes("".join([*parts, text[end:]]))


def _rewritten(link: Link, path: str, guide: str, guides: Mapping[str, str], repository: str) -> str:
    anchor = f"#{link.anchor}" if link.anchor else ""
    if path in guides.values() or link.picture:
        near = os.path.relpath(path, os.path.dirname(guide) or ".").replace(os.sep, "/") if link.path else ""
        return f"{'!' if link.picture else ''}[{link.text}]({near}{anchor})"
    if repository:
        return f"[{link.text}]({repository}/blob/HEAD/{path}{anchor})"
    return f"`{path}`" if path.endswith(link.text.strip("`")) else f"{link.text} (`{path}`)"


def _unescape_pipes(text: str) -> str:
    r"""In code in a table GitHub reads `\|` as a pipe, and Python's Markdown as both characters."""
    lines = text.split("\n")
    for number, outside in enumerate(FENCE.sub(_blank, text).split("\n")):
        if outside.startswith("|"):
            lines[number] = CODE.sub(lambda code: code[0].replace(r"\|", "|"), lines[number])
    return "\n".join(lines)


def gather(build: Path, root: Path = ROOT, guides: Mapping[str, str] = GUIDES) -> None:
    """Write `pages/` with guides, pictures and the search script, and `mkdocs.yml`, whose pages go to `site/`."""
    pages = build / "pages"
    repository = repository_url(root)
    for guide in guides.values():
        copy = pages / guide
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(page(root, guide, guides, repository), encoding="utf-8")
        for link in links((root / guide).read_text(encoding="utf-8")):
            if link.picture:
                picture = target(root, guide, link, guides)
                (pages / picture).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / picture, pages / picture)
    (pages / "assets").mkdir()
    shutil.copyfile(WORKER, pages / "assets" / WORKER.name)
    settings = {
        "INHERIT": str(SETTINGS),
        "docs_dir": str(pages),
        "site_dir": str(build / "site"),
        "nav": [{title: guide} for title, guide in guides.items()],
    }
    (build / "mkdocs.yml").write_text(json.dumps(settings, indent=1), encoding="utf-8")  # JSON is YAML, too


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("guides: name the build folder: python scripts/lib/guides.py BUILD_FOLDER")
    if found := problems():
        print("\n".join(found), file=sys.stderr)
        print(f"guides: mend {'the link' if len(found) == 1 else f'these {len(found)} links'}", file=sys.stderr)
        sys.exit(2)
    gather(Path(sys.argv[1]).resolve())


if __name__ == "__main__":
    main()
