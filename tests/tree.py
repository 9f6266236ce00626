"""The file tree of a package as its README shows it: one line a module, with the first line of its docstring.

python -m tests.tree --write     puts the current trees into the READMEs
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREES = {"rlfr_vlm/README.md": ROOT / "rlfr_vlm", "eval/README.md": ROOT / "eval" / "rlfr_eval"}
BLOCK = re.compile(r"(?<=<!-- tree -->\n```\n).*?(?=```\n<!-- end tree -->)", re.DOTALL)


def summary(path: Path) -> str:
    """First line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].rstrip(".:")


def tree(package: Path) -> str:
    """One line for each module and folder of a package."""

    def lines(folder: Path, depth: int) -> Iterator[str]:
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                yield f"{'  ' * depth}{path.name}  {summary(path)}"
        for path in sorted(folder.iterdir()):
            if (path / "__init__.py").is_file():
                yield f"{'  ' * depth}{path.name}/  {summary(path / '__init__.py')}"
                yield from lines(path, depth + 1)

    return "".join(f"{line}\n" for line in (f"{package.name}/", *lines(package, 1)))


if __name__ == "__main__" and "--write" in sys.argv:
    for name, package in TREES.items():
        before, _, rest = (ROOT / name).read_text(encoding="utf-8").partition("<!-- tree -->\n```\n")
        after = rest[rest.index("```\n<!-- end tree -->") :]
        (ROOT / name).write_text(f"{before}<!-- tree -->\n```\n{tree(package)}{after}", encoding="utf-8")
