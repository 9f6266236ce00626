"""Every example runs on a CPU and leaves what it says; README shows the first one whole."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "scripts" / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One folder for all examples: the second one scores with the field of the first."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def run(folder, monkeypatch, capsys):
    def example(name: str, *arguments: str) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return example


def test_train_rlfr(run, folder):
    from rlfr_vlm import load_field

    run("train_rlfr", "out")
    (fitted, spec), (trained, _) = load_field(folder / "out" / "flow"), load_field(folder / "out" / "rlfr")
    assert spec.steps == 20
    moved = [(a != b).any().item() for a, b in zip(fitted.parameters(), trained.parameters(), strict=True)]
    assert any(moved)  # the field was fitted further during training
    assert (folder / "out" / "rlfr" / "model.safetensors").is_file()


@pytest.mark.slow
def test_fit_flow_then_score_responses(run):
    printed = run("fit_flow", "field")
    assert "of the zero predictor's" in printed and "token_pre" in printed
    lines = [line for line in run("score_responses", "field").splitlines() if "mean deviation" in line]
    assert len(lines) == 2
    means = [float(line.split("mean deviation ")[1].split(",")[0]) for line in lines]
    assert min(means) > 0 and means[0] != means[1]
    again = [line for line in run("score_responses", "field").splitlines() if "mean deviation" in line]
    assert again == lines  # the same seed draws the same noise


def test_custom_reward(run, folder):
    run("custom_reward", "custom")
    lines = [line for path in (folder / "custom").glob("rollouts/*.jsonl") for line in path.read_text().splitlines()]
    assert lines and all('"is_short"' in line and '"early_tokens"' in line for line in lines)


def test_grade_answers(run):
    assert [line.split(": ")[1].split()[0] for line in run("grade_answers").splitlines()] == [
        "right",
        "right",
        "wrong",
        "wrong",
        "undecided",
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short_and_say_how_to_run_them(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 40 and f"python scripts/examples/{path.name}" in text


def test_readme_shows_the_first_example_whole():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{(EXAMPLES / 'train_rlfr.py').read_text(encoding='utf-8')}```" in readme
