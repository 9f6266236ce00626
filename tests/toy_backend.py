"""A build backend of a few lines, for a toy project that is built without a network; also makes wheels for tests."""

import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_wheel(folder: Path, name: str, version: str, requires: Sequence[str], files: Mapping[str, str]) -> str:
    """Write a wheel and return its file name."""
    distribution = name.replace("-", "_")
    info = f"{distribution}-{version}.dist-info"
    metadata = "".join(
        f"{line}\n" for line in ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *requires)
    )
    tag = "py3-none-any"
    wheel = f"Wheel-Version: 1.0\nGenerator: toy\nRoot-Is-Purelib: true\nTag: {tag}\n"
    with zipfile.ZipFile(folder / f"{distribution}-{version}-{tag}.whl", "w") as archive:
        for path, text in {
            **files,
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": wheel,
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(path, text)
    return f"{distribution}-{version}-{tag}.whl"


def _build(folder: str, files: Mapping[str, str]) -> str:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    requires = [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        requires.append(f"Provides-Extra: {extra}")
        requires += [f"Requires-Dist: {requirement}; extra == '{extra}'" for requirement in requirements]
    return write_wheel(Path(folder), project["name"], project["version"], requires, files)


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Hook of PEP 517."""
    return _build(wheel_directory, {"rlfr_vlm.py": ""})


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: Any = None) -> str:
    """Hook of PEP 660."""
    return _build(wheel_directory, {"rlfr_vlm_toy.pth": f"{Path.cwd()}\n"})


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """Hook of PEP 660: asks for what hatchling asks for."""
    return ["editables"]
