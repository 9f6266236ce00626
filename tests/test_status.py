"""What has run where: every launcher, notebook and recipe has a row, and a row with hardware has a date."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
STATUS = SCRIPTS / "status.md"
DATE = re.compile(r"20\d\d-\d\d-\d\d")
NOT_RUN = ("not run", "not trained")


def rows():
    """The cells of each row of the two tables."""
    lines = [line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("path", "script") and not set(row[0]) <= set("-|")]


def named():
    """What the first cells name between backquotes."""
    return [name for row in rows() for name in re.findall(r"`([^`]+)`", row[0])]


def family(stem):
    """The family of a recipe: its name without the model's.

    `train_rlfr_lora_qwen2.5-vl-3b` is of `train_rlfr_lora_*`.
    """
    return f"{stem.rpartition('_')[0]}_*"


def test_every_script_and_notebook_has_a_row():
    scripts = [path.name for path in SCRIPTS.glob("*.sh")]
    notebooks = [f"notebooks/{path.name}" for path in (SCRIPTS / "notebooks").glob("*.ipynb")]
    assert sorted(name for name in named() if name.endswith((".sh", ".ipynb"))) == sorted([*scripts, *notebooks])


def test_every_family_of_recipes_has_a_row():
    families = {family(path.stem) for path in (SCRIPTS / "configs").glob("*.yaml")}
    assert {name for name in named() if name.endswith("*")} == families


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_row_says_hardware_and_date_or_that_it_has_not_run(row):
    assert len(row) == 4
    _, hardware, when, what = row
    if hardware in NOT_RUN:
        assert when == ""
    else:
        assert DATE.fullmatch(when) and (what or "dry run" in hardware)


ASKED = (
    *("quick start", "SmolLM2-135M", "Qwen2.5-VL-3B and 7B", "`train_rlfr_lora_*`", "`train_rlfr_16gb_*`"),
    *("`vllm-colocate`", "`vllm-server`", "ZeRO-2, ZeRO-3", "FSDP2", "flow fitting at 3B"),
    *("`rlfr-eval lm`", "`rlfr-eval vlm`", "judge by an API", "lmdeploy", "benchmarks while training"),
)


@pytest.mark.parametrize("path", ASKED)
def test_paths_that_people_ask_about_have_a_row(path):
    assert sum(path in row[0] for row in rows()) == 1


def test_the_readme_links_it_and_both_say_the_same_of_gpus():
    status = (ROOT / "README.md").read_text(encoding="utf-8").split("## Status")[1].split("## ")[0]
    assert "(scripts/status.md)" in status
    sentence = "Nothing has run on a GPU yet"
    assert (sentence in status) == (sentence in STATUS.read_text(encoding="utf-8"))
