"""Notebooks ship without outputs, their commands exist, and the first one runs on a CPU with the small policy."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "scripts" / "notebooks").glob("*.ipynb"))
FIRST = ROOT / "scripts" / "notebooks" / "first_hour.ipynb"


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel of this interpreter, which no other folder of Jupyter knows."""
    import json

    spec = tmp_path / "jupyter" / "kernels" / "this-interpreter" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "this interpreter", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    return spec.parent.name


def with_settings(path, **settings):
    """A notebook with other settings, in a cell behind the one that is tagged `parameters`."""
    notebook = nbformat.read(path, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    names = {line.split(" = ")[0] for line in notebook.cells[place].source.splitlines()}
    assert set(settings) <= names, set(settings) - names
    lines = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_valid_and_hold_no_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [cell.metadata.get("tags") for cell in code if cell.metadata] == [["parameters"]]
    assert set(notebook.metadata) == {"kernelspec", "language_info", "accelerator", "colab"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_explain_each_step_and_stop_at_the_first_failure(path):
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == cells[-1].cell_type == "markdown"
    for cell in cells:
        if cell.cell_type == "code":
            # a line that begins with ! would let the notebook go on after a failure
            assert not re.search(r"^\s*!", cell.source, re.M)
            assert "rlfr " not in cell.source.splitlines()[0] and cell.source.count("\n") < 20
            assert "%%bash" not in cell.source or cell.source.startswith("%%bash -e\n")
        else:
            assert cell.source.startswith("#") and len(cell.source) < 700


def flags_of(command):
    import importlib

    from rlfr_vlm.cli import COMMANDS
    from rlfr_vlm.command_line import help_of
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    inherited = {"fit-flow": FlowFitConfig, "train": RLFRConfig, "plan": RLFRConfig}  # beside what the help lists
    fields = getattr(inherited.get(command), "__dataclass_fields__", ())
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", help_of(importlib.import_module(COMMANDS[command]))))
    settings = flags_of("train") if command == "plan" else set()
    return shown | settings | {f"--{name}" for name in fields}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_commands_flags_and_recipes_of_notebooks_exist(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    lines = [line.strip() for cell in cells for line in cell.replace("\\\n", " ").splitlines()]
    commands = [line.split() for line in lines if line.startswith("rlfr ")]
    assert {words[1] for words in commands} == {"plan", "fit-flow", "train", "report"}
    for words in commands:
        assert {word for word in words if word.startswith("--")} <= flags_of(words[1]), words[1]
    for recipe in re.findall(r"\$configs/([\w.-]+)", "\n".join(lines)):
        assert (ROOT / "scripts/configs" / recipe).is_file(), recipe


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_first_hour_runs_on_a_cpu(tmp_path, kernel, monkeypatch):
    from nbclient import NotebookClient

    from rlfr_vlm import load_field
    from rlfr_vlm.quickstart.warm_start import WarmStartRecipe, cached_policy

    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))
    policy, _ = cached_policy(WarmStartRecipe(steps=2, rows=128, batch_size=8))
    out = tmp_path / "out"
    numbers = {"rows": 64, "fit_steps": 3, "steps": 2, "prompts": 1, "tokens": 16}
    notebook = with_settings(FIRST, policy=str(policy), repository=str(ROOT), out=str(out), **numbers)
    notebook.cells.append(nbformat.v4.new_code_cell("sys.executable"))
    client = NotebookClient(notebook, kernel_name=kernel, timeout=500, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == repr(sys.executable)
    assert load_field(out / "flow")[1].steps == 3
    for method in ("rlvr", "rlfr"):
        assert len((out / method / "metrics.jsonl").read_text().splitlines()) >= 2
    assert (out / "page" / "report.html").is_file()
    figures = next(cell for cell in notebook.cells if cell.id == "figures")
    assert any("image/png" in output.get("data", {}) for output in figures.outputs)
