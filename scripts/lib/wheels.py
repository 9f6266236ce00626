"""Choose and arrange the wheels of scripts/wheelhouse.sh: what pip resolved, less what is installed elsewhere.

    python scripts/lib/wheels.py check PIP_FREEZE                  says whether the file is output of `pip freeze`
    python scripts/lib/wheels.py needed REPORT [PIP_FREEZE]        prints NAME==VERSION of the wheels to collect
    python scripts/lib/wheels.py build-requirements PYPROJECT      prints what an editable install builds with
    python scripts/lib/wheels.py split FOLDER MEGABYTES            moves the wheels into FOLDER/1, FOLDER/2, ...

REPORT is what `pip install --dry-run --report` writes. Runs with the standard library alone.
"""

import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
PROJECT = "rlfr-vlm"  # its wheel is built from the checkout
PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)==(\S+)")
WITHOUT_VERSION = re.compile(r"#|-e |--editable |[A-Za-z0-9][\w.-]* @ ")  # comments and installs from addresses


class WheelhouseError(Exception):
    """A problem that the user can mend."""


def canonical(name: str) -> str:
    """Return a distribution's name as the package index compares it.

    >>> canonical("Typing_Extensions")
    'typing-extensions'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """Return a version without its local part, which names a build such as CUDA's.

    >>> public("2.13.0+cu130")
    '2.13.0'
    """
    return version.partition("+")[0]


def read_freeze(path: Path) -> dict[str, str]:
    """Read name -> version from the output of `pip freeze`; installs from addresses have no version and are left out.

    Raises:
        WheelhouseError: a line is none that `pip freeze` prints.
    """
    versions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or WITHOUT_VERSION.match(line):
            continue
        found = PINNED.fullmatch(line.strip())
        if found is None:
            raise WheelhouseError(f"{path}:{number}: {line!r} is no line of `pip freeze`, such as numpy==2.3.5")
        versions[canonical(found[1])] = public(found[2])
    return versions


def needed(report: Mapping[str, Any], have: Mapping[str, str]) -> list[str]:
    """Return NAME==VERSION of what pip would install, without this project and what is there at the same version."""
    versions = {item["metadata"]["name"]: item["metadata"]["version"] for item in report["install"]}
    return sorted(
        f"{name}=={version}"
        for name, version in versions.items()
        if canonical(name) != PROJECT and have.get(canonical(name)) != public(version)
    )


def parts(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Distribute files over as few parts of at most `limit` bytes as first-fit decreasing finds.

    >>> parts({"a": 6, "b": 5, "c": 4, "d": 3}, 10)
    [['a', 'c'], ['b', 'd']]

    Raises:
        WheelhouseError: a file is larger than a part.
    """
    found: list[tuple[int, list[str]]] = []
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        if size > limit:
            raise WheelhouseError(
                f"{name} has {size / MEGABYTE:,.1f} MB, more than a part of {limit / MEGABYTE:,.0f} MB; raise --max-mb"
            )
        for place, (used, names) in enumerate(found):
            if used + size <= limit:
                found[place] = (used + size, [*names, name])
                break
        else:
            found.append((size, [name]))
    return [names for _, names in found]


def split(folder: Path, megabytes: int) -> None:
    """Move the wheels of a folder into numbered sub-folders of at most that many megabytes."""
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.whl")}
    for number, names in enumerate(parts(sizes, megabytes * MEGABYTE), start=1):
        (folder / str(number)).mkdir()
        for name in names:
            (folder / name).rename(folder / str(number) / name)


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case ["check", freeze]:
            read_freeze(Path(freeze))
        case ["needed", report, *freeze]:
            have = read_freeze(Path(freeze[0])) if freeze else {}
            print(*needed(json.loads(Path(report).read_text(encoding="utf-8")), have), sep="\n")
        case ["build-requirements", pyproject]:
            requires = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["build-system"]["requires"]
            print(*requires, "editables", sep="\n")  # hatchling asks for editables once it is there
        case ["split", folder, megabytes]:
            split(Path(folder), int(megabytes))
        case _:
            raise WheelhouseError("see the head of scripts/lib/wheels.py")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WheelhouseError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        sys.exit(2)
