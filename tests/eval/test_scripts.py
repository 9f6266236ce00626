"""The launchers: they say what they do, and do nothing when asked for that."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def bash(*arguments, **environment):
    return subprocess.run(
        ["bash", *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.skipif(not (ROOT / ".venv/bin/rlfr-eval").exists(), reason="the launcher uses .venv, which is not there")
def test_eval_lm_passes_everything_on(toy, alone):
    model = alone / "a model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    done = bash(ROOT / "scripts/eval_lm.sh", str(model), toy(), "--", "--dry-run", "--data-dir", "data", "--out", "o")
    assert done.returncode == 0, done.stderr
    assert "+ rlfr-eval lm --model" in done.stderr and "4 answers of a model into o" in done.stdout
    done = bash(ROOT / "scripts/eval_lm.sh", str(model), "--", "--dry-run", RLFR_EVAL_DATA="nowhere")
    assert done.returncode == 2 and "nowhere/aime24.jsonl is missing" in done.stderr  # math is the default


def test_eval_lm_without_a_model_shows_how():
    done = bash(ROOT / "scripts/eval_lm.sh")
    assert done.returncode == 2 and "bash scripts/eval_lm.sh MODEL [SUITE...]" in done.stdout


def test_setup_judge_dry_run_starts_nothing():
    there = (ROOT / ".venv-judge").exists()
    done = bash(ROOT / "scripts/setup_judge.sh", "--dry-run")
    assert done.returncode == 0 and "install --quiet lmdeploy>=0.18,<0.19" in done.stdout
    assert (ROOT / ".venv-judge").exists() == there
    assert bash(ROOT / "scripts/setup_judge.sh", "--nope").returncode == 2


def test_setup_of_lmdeploys_http_layer_takes_no_engine():
    there = (ROOT / ".venv-judge-http").exists()
    done = bash(ROOT / "scripts/setup_judge.sh", "--http-only", "--dry-run")
    assert done.returncode == 0 and "install --quiet --no-deps lmdeploy>=0.18,<0.19" in done.stdout
    assert ".venv-judge-http/bin/python" in done.stdout and "torch" not in done.stdout
    assert (ROOT / ".venv-judge-http").exists() == there


def test_eval_vlm_dry_run_prints_every_step():
    done = bash(ROOT / "scripts/eval_vlm.sh", "--dry-run", "--limit", "5", CKPT="out/checkpoint-8", DATASETS="WeMath")
    assert done.returncode == 0 and "setup_vlmeval.sh" in done.stdout and "serves out/checkpoint-8" in done.stdout
    command = (
        "rlfr-eval vlm --model out/checkpoint-8 --data WeMath --preset paper --out outputs/eval/out--checkpoint-8"
    )
    assert f"{command} --limit 5" in done.stdout
    assert bash(ROOT / "scripts/eval_vlm.sh", CKPT="").returncode == 2
    # a line that can be copied, wherever the flag stands; a name without a folder; names on several lines
    done = bash(
        ROOT / "scripts/eval_vlm.sh", "--system-prompt", "a b", "--dry-run", CKPT="x", DATASETS="WeMath\n LogicVista"
    )
    command = "--model x --data WeMath LogicVista --preset paper --out outputs/eval/x --system-prompt a\\ b"
    assert done.returncode == 0 and command in done.stdout


def test_setup_vlmeval_dry_run_starts_nothing():
    done = bash(ROOT / "scripts/setup_vlmeval.sh", "--dry-run")
    assert done.returncode == 0 and "ms-vlmeval==0.0.20 pandas>=2.2,<3" in done.stdout
    assert bash(ROOT / "scripts/setup_vlmeval.sh", "--nope").returncode == 2
