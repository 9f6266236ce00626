"""Install wheels of a folder beside the packages of this interpreter, into a folder for PYTHONPATH, without a network.

    python -m benchmarks.gpu.install WHEELS SITE

No dependency is looked for: the folder decides. Left out is what this interpreter has already in a version that
pyproject.toml accepts or, if that does not name it, in the same version or a later one. If its torch stays, so do the
libraries of CUDA and Triton, whatever the folder has of them.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "rlfr-vlm"  # runs from the checkout
OF_TORCH = re.compile(r"(nvidia|cuda|triton)(-|$)")
STAMP = "installed.json"


def accepted(project: Mapping[str, object]) -> dict[str, SpecifierSet]:
    """Distribution -> versions that a parsed pyproject.toml accepts, its optional parts included."""
    table: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    texts: list[str] = [*project["dependencies"], *(text for part in table.values() for text in part)]  # type: ignore
    found: dict[str, SpecifierSet] = {}
    for requirement in map(Requirement, texts):
        name = canonicalize_name(requirement.name)
        found[name] = found.get(name, SpecifierSet()) & requirement.specifier
    return found


def needed(wheels: list[Path], installed: Mapping[str, str], ranges: Mapping[str, SpecifierSet]) -> list[Path]:
    """Wheels to install.

    Args:
        installed: distribution -> version, of the interpreter.
        ranges: as `accepted` returns.
    """

    def is_there(name: str, version: Version) -> bool:
        if name not in installed:
            return False
        here = Version(installed[name])
        return here in ranges[name] if name in ranges else here >= version

    named = {path: parse_wheel_filename(path.name)[:2] for path in wheels}
    keeps_torch = "torch" in installed and is_there("torch", Version(installed["torch"]))
    return [
        path
        for path, (name, version) in named.items()
        if name != PROJECT and not is_there(name, version) and not (keeps_torch and OF_TORCH.match(name))
    ]


def unmet(installed: Mapping[str, str], project: Mapping[str, object]) -> list[str]:
    """Dependencies of the project that are missing, or there in another version than it accepts."""
    found = []
    for requirement in map(Requirement, project["dependencies"]):  # type: ignore[call-overload]
        here = installed.get(canonicalize_name(requirement.name))
        if here is None or Version(here) not in requirement.specifier:
            found.append(f"{requirement} ({'missing' if here is None else f'there is {here}'})")
    return found


def installed_versions(path: list[str]) -> dict[str, str]:
    """Distribution -> version of what is found along `path`; the first one counts, as for imports."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions(path=path):
        found.setdefault(canonicalize_name(distribution.metadata["Name"]), distribution.version)
    return found


def main(wheels_folder: Path, site: Path) -> None:
    """Install, unless the same wheels are there already, and name what the project lacks."""
    wheels = sorted([*wheels_folder.glob("*.whl"), *wheels_folder.glob("[0-9]*/*.whl")])
    if not wheels:
        sys.exit(f"gpu_check: no wheels in {wheels_folder}; collect them with scripts/wheelhouse.sh")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    others = [folder for folder in sys.path if folder and Path(folder).resolve() != site.resolve()]
    chosen = needed(wheels, installed_versions(others), accepted(project))
    names = [path.name for path in chosen]
    stamp = site / STAMP
    if chosen and not (stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == names):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index",
                   "--no-deps", "--no-compile", "--upgrade", "--target", str(site), *map(str, chosen)]  # fmt: skip
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(f"gpu_check: pip could not install the wheels of {wheels_folder} (exit code {code})")
        stamp.write_text(json.dumps(names), encoding="utf-8")
    print(f"gpu_check: {len(chosen)} of {len(wheels)} wheels are used; the others are there already")
    for line in unmet(installed_versions([str(site), *others]), project):
        print(f"gpu_check: the project needs {line}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
