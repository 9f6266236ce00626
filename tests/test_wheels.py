"""Wheels for machines without a network: which are collected, how they are split, and installing from them alone."""

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pip
import pytest

from tests import toy_backend

ROOT = Path(__file__).resolve().parent.parent
PROJECT = """
[build-system]
requires = []
build-backend = "toy_backend"
backend-path = ["."]
[project]
name = "rlfr-vlm"
version = "0.1"
dependencies = ["torchvision", "small-thing>=1"]
[project.optional-dependencies]
lora = ["peft"]
"""
# makes environments in no time: pip is linked, where venv would unpack it
INTERPRETER = """#!/usr/bin/env bash
[ "$1 $2" = "-m venv" ] || exec "{python}" "$@"
"{python}" -m venv --without-pip "$3" && cd "$3"/lib/python*/site-packages && ln -s "{pip}" pip
"""
FREEZE = "# a comment\nnumpy==2.3.5\nTyping_Extensions==4.16.0\ntorch==2.13.0+cu130\n-e git+x#egg=y\nz @ file:///z\n"


@pytest.fixture
def wheels(monkeypatch):
    """The module behind the script, with its folder on sys.path as when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "lib"))
    return importlib.import_module("wheels")


def report(**versions):
    """What pip reports of an installation."""
    return {"install": [{"metadata": {"name": n.replace("_", "-"), "version": v}} for n, v in versions.items()]}


def test_what_is_installed_there_at_the_same_version_is_left_out(wheels, tmp_path):
    (tmp_path / "have.txt").write_text(FREEZE)
    have = wheels.read_freeze(tmp_path / "have.txt")
    assert have == {"numpy": "2.3.5", "typing-extensions": "4.16.0", "torch": "2.13.0"}
    found = report(numpy="2.3.4", typing_extensions="4.16.0", torch="2.13.0", rlfr_vlm="0.1", z="1", scipy="1.17.1")
    assert wheels.needed(found, have) == ["numpy==2.3.4", "scipy==1.17.1", "z==1"]
    assert len(wheels.needed(found, {})) == 5  # all but the project itself


def test_a_list_for_people_is_no_freeze(wheels, tmp_path):
    (tmp_path / "have.txt").write_text("numpy==2.3.5\nscipy      1.17.1\n")
    with pytest.raises(wheels.WheelhouseError) as error:
        wheels.read_freeze(tmp_path / "have.txt")
    assert str(error.value) == (
        f"{tmp_path}/have.txt:2: 'scipy      1.17.1' is no line of `pip freeze`, such as numpy==2.3.5"
    )


def test_parts_hold_at_most_the_limit(wheels, tmp_path):
    sizes = {"a": 700_000, "b": 600_000, "c": 400_000, "d": 300_000, "e": 1_000_000}
    # largest first: e alone, a with d, b with c
    assert wheels.parts(sizes, 1_000_000) == [["e"], ["a", "d"], ["b", "c"]]
    for name, size in sizes.items():
        (tmp_path / f"{name}.whl").write_bytes(bytes(size))
    wheels.split(tmp_path, 1)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.whl"))
    assert found == ["1/e.whl", "2/a.whl", "2/d.whl", "3/b.whl", "3/c.whl"]
    with pytest.raises(wheels.WheelhouseError, match=r"^e has 1\.5 MB, more than a part of 1 MB; raise --max-mb$"):
        wheels.parts({"e": 1_500_000}, 1_000_000)


@pytest.fixture
def project(tmp_path):
    """A toy project with the real scripts, and an index of toy wheels beside it."""
    root = tmp_path / "a project"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copy(toy_backend.__file__, root)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "constraints.txt").write_text("small-thing==1.2\n")
    index = tmp_path / "index"
    index.mkdir()
    for name, version, size in (("torchvision", "0.28.0", 900), ("peft", "0.21.2", 800), ("editables", "0.6", 700)):
        toy_backend.write_wheel(index, name, version, (), {f"{name}.py": f"# {size * 1000 * '-'}"})  # uncompressed
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER.format(python=sys.executable, pip=Path(pip.__file__).parent))
    interpreter.chmod(0o755)
    for version in ("1.2", "2.0"):
        toy_backend.write_wheel(index, "small-thing", version, (), {"small_thing.py": f"version = '{version}'"})
    return root


def run(project, script, *arguments, links=None, offline=False):
    """Run a script with no index; `links` names the folder that stands for it, `offline` takes the network away."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "https_proxy": "http://127.0.0.1:9"}
    environment["PYTHON"] = str(project.parent / "python")
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)} if links else {}
    without = ["unshare", "-n"] if offline and CAN_UNSHARE else []
    command = [*without, "bash", str(project / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, cwd=project.parent, env=environment, capture_output=True, text=True, check=False)


CAN_UNSHARE = (
    shutil.which("unshare") is not None and subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0
)


def names(folder):
    """Wheels of a folder without versions and tags."""
    return sorted(path.relative_to(folder).as_posix().split("-")[0] for path in folder.rglob("*.whl"))


def test_collected_wheels_install_without_a_network(project, tmp_path):
    done = run(project, "wheelhouse.sh", "wheels", "--extras", "lora", "--max-mb", 1, links=tmp_path / "index")
    assert done.returncode == 0, done.stderr
    # 0.9, 0.8 and 0.7 MB do not fit beside each other; what is small fits beside the first
    assert names(tmp_path / "wheels") == ["1/rlfr_vlm", "1/small_thing", "1/torchvision", "2/peft", "3/editables"]
    assert [path.name for path in (tmp_path / "wheels").rglob("small_thing*")] == ["small_thing-1.2-py3-none-any.whl"]
    assert "bash scripts/setup.sh --wheels DIR --extras lora" in done.stdout
    assert not list(tmp_path.glob("wheels.*"))

    done = run(project, "setup.sh", "--wheels", "wheels", "--extras", "lora", offline=True)
    assert done.returncode == 0, done.stderr
    program = "import small_thing, peft, torchvision, sys; print(small_thing.version, sys.path[-1])"
    done = subprocess.run([project / ".venv/bin/python", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"1.2 {project}\n"  # the project is installed from where it lies

    (project / "constraints.txt").write_text("small-thing==2.0\n")  # which was not collected
    done = run(project, "setup.sh", "--wheels", "wheels", offline=True)
    assert done.returncode == 2
    assert f"setup: {tmp_path}/wheels does not suffice; collect again with the same extras" in done.stderr


@pytest.mark.slow
def test_what_is_there_is_not_collected(project, tmp_path):
    (tmp_path / "have.txt").write_text("torchvision==0.28.0+cu130\nsmall_thing==1.1\neditables==0.6\n")
    done = run(project, "wheelhouse.sh", tmp_path / "wheels", "--have", "have.txt", links=tmp_path / "index")
    assert done.returncode == 0, done.stderr
    # what builds the package is always there: pip takes nothing installed for that
    assert names(tmp_path / "wheels") == ["editables", "rlfr_vlm", "small_thing"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no folder is named; see the head of scripts/wheelhouse.sh"),
        (["--nope"], "unknown option --nope; see the head of scripts/wheelhouse.sh"),
        (["index"], "{0}/index is not empty; name a new folder"),
        (["x", "y"], "two folders are named: {0}/x and y"),
        (["x", "--max-mb", "0"], "--max-mb is 0; it must be a whole number of 1 or more"),
        (
            ["x", "--have", "gone.txt"],
            "there is no {0}/gone.txt; write it with `pip freeze` where the wheels shall be installed",
        ),
    ],
)
def test_mistakes_are_one_message(project, tmp_path, arguments, message):
    done = run(project, "wheelhouse.sh", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"wheelhouse: {message.format(tmp_path)}\n"
    assert not (tmp_path / "x").exists()


def test_a_folder_without_wheels_is_refused(project, tmp_path):
    done = run(project, "setup.sh", "--wheels", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"setup: no wheels in {tmp_path}/nowhere; collect them with scripts/wheelhouse.sh where there is a network\n"
    )
    assert not (project / ".venv").exists()
