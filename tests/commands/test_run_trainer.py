"""What `rlfr train` does by itself and says: a machine without a GPU, held-out accuracy, the records of a run."""

import json

import pytest
import torch
import yaml

from rlfr_vlm.cli import main
from rlfr_vlm.commands.run_trainer import cpu_arguments
from rlfr_vlm.config_file import names_given


@pytest.fixture
def policy_folder(make_policy, processor, tmp_path):
    make_policy().save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    return str(tmp_path / "policy")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)


CPU_LINE = "no GPU found: running on the CPU (use_cpu: true)\n"


def test_a_recipe_for_gpus_trains_on_a_machine_without_one(policy_folder, no_gpu, tmp_path, capsys):
    """It sets bf16, which transformers refuses without a GPU unless use_cpu is set. Each update is evaluated."""
    recipe = {"method": "rlvr", "bf16": True, "num_generations": 4, "max_completion_length": 8, "report_to": "none"}
    recipe |= {"eval_strategy": "steps", "eval_steps": 1, "eval_rows": 4, "save_strategy": "no"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["--config", str(tmp_path / "recipe.yaml"), "--model_name_or_path", policy_folder]
    arguments += ["--dataset_name", "digits", "--dataset_limit", "16", "--output_dir", str(tmp_path / "run")]
    arguments += ["--max_steps", "2", "--per_device_train_batch_size=8"]
    assert main(["train", *arguments]) == 0
    output = capsys.readouterr().out
    assert output.count(CPU_LINE) == 1
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (settings["use_cpu"], settings["bf16"]) == (True, True)
    for step in (1, 2):  # a line for each evaluation
        assert output.count(f"step {step}: held-out accuracy (n = 4): greedy ") == 1
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    others = {"model_name_or_path", "dataset_name", "dataset_limit", "output_dir", "max_steps"}
    assert set(record["given_settings"]) == {*recipe, *others, "per_device_train_batch_size"}


def test_the_cpu_is_chosen_where_there_is_no_gpu(no_gpu, capsys):
    assert cpu_arguments({"bf16"}) == ["--use_cpu", "true"]
    assert cpu_arguments(set()) == ["--use_cpu", "true", "--bf16", "false"]
    assert capsys.readouterr().out == 2 * CPU_LINE


def test_the_device_is_left_to_the_user_to_a_gpu_and_to_deepspeed(no_gpu, monkeypatch, capsys):
    assert cpu_arguments({"use_cpu"}) == cpu_arguments({"deepspeed"}) == []
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert cpu_arguments(set()) == []
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert cpu_arguments(set()) == []
    assert capsys.readouterr().out == ""


def test_only_the_first_process_says_that_it_runs_on_the_cpu(no_gpu, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert cpu_arguments(set()) != [] and capsys.readouterr().out == ""


def test_names_of_the_settings_that_a_user_gives(tmp_path):
    (tmp_path / "c.yaml").write_text("seed: 3\nflow_coef: 0.1\n")
    arguments = ["--config", str(tmp_path / "c.yaml"), "--flow-coef", "0.2", "--no_use_cpu", "--reward_weights", "-1"]
    assert names_given(arguments) == {"seed", "flow_coef", "reward_weights", "no_use_cpu", "use_cpu"}
