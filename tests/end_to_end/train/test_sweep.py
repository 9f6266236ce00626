"""`rlfr sweep` with real runs of a tiny policy: two methods from one start, with held-out rows."""

import json
import sys

import pytest
import yaml

from rlfr_vlm.commands.sweep import carry_out
from tests.sweep.helpers import sweep_of
from tests.trainer.launching import CLI, environment


@pytest.mark.slow
def test_two_methods_from_one_start(make_policy, processor, tmp_path, monkeypatch, capsys):
    make_policy().save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    settings = {"model_name_or_path": str(tmp_path / "policy"), "dataset_name": "digits", "dataset_limit": 16}
    settings |= {"num_generations": 4, "per_device_train_batch_size": 8, "max_completion_length": 8, "max_steps": 2}
    settings |= {"eval_strategy": "steps", "eval_steps": 2, "eval_rows": 8, "save_strategy": "no"}
    settings |= {"report_to": "none", "entropy_alpha": 0.3}
    config = tmp_path / "x.yaml"
    config.write_text(yaml.safe_dump(settings))
    sweep = sweep_of(tmp_path / "out", ["rlvr", "entropy"], [3], config=config)

    def command(run):
        return [sys.executable, "-c", CLI, "train", *run.arguments, "--resume", "auto"]

    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    assert carry_out(sweep, command, check=list) == 0
    assert "entropy/seed-3: finished in " in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rlvr, entropy = results["rows"]
    for mode in ("eval_greedy", "eval_sampled"):
        difference = entropy["differences"][mode]
        assert difference["mean"] == entropy["per_seed"][mode]["3"] - rlvr["per_seed"][mode]["3"]
        assert difference["ci95"] is None
    assert results["measured"] == "Held-out accuracy at the last evaluation, update 2; means over seeds."
    configs = [yaml.safe_load((run.folder / "config.yaml").read_text()) for run in sweep.runs]
    differing = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert {"method", "entropy_alpha"} <= differing <= {"method", "entropy_alpha", "output_dir", "logging_dir"}
    prompts = [
        [json.loads(line)["row_number"] for line in (run.folder / "rollouts" / "rank0.jsonl").read_text().splitlines()]
        for run in sweep.runs
    ]
    assert prompts[0] == prompts[1] and len(set(prompts[0])) == 4  # 2 rollouts of 2 prompts
    assert json.loads((sweep.runs[0].folder / "run.json").read_text())["finished"]["steps"] == 2
    assert carry_out(sweep, lambda run: ["false"], check=list) == 0  # nothing is left to run
