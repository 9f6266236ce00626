"""Two real processes: the field and the policy stay identical on both, and fitting works."""

import json
import os
import subprocess
import sys

import pytest

TRAIN = """
import hashlib, json, sys
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config import parse_config
from rlfr_vlm.options import RunOptions
from rlfr_vlm.trainer.config import RLFRConfig

options, args = parse_config((RunOptions, RLFRConfig), sys.argv[2:])
trainer = build_trainer(options, args)
digest = lambda module: hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.parameters())).hexdigest()
before = digest(trainer.flow.field)
trainer.train()
logged = [h for h in trainer.state.log_history if "flow/loss" in h]
result = {"before": before, "field": digest(trainer.flow.field), "policy": digest(trainer.model),
          "noise": trainer.flow.generator.get_state().sum().item(), "flow_loss": [h["flow/loss"] for h in logged],
          "deviation": [h["flow/deviation_wrong"] for h in logged if "flow/deviation_wrong" in h]}
open(f"{sys.argv[1]}.{trainer.accelerator.process_index}", "w").write(json.dumps(result))
"""


@pytest.fixture
def folders(make_policy, processor, tmp_path):
    make_policy().save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    return tmp_path


def launch(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def options(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def test_fit_and_train_on_two_processes(folders):
    common = options(
        model_name_or_path=folders / "policy",
        dataset_name="digits",
        use_cpu="true",
        bf16="false",
        report_to="none",
        save_strategy="no",
        per_device_train_batch_size=4,
        learning_rate=1e-3,
    )
    fit = options(dataset_limit=40, output_dir=folders / "flow", flow_depth=1, max_steps=3)
    done = launch(["-m", "rlfr_vlm.cli", "fit-flow", *common, *fit])
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-out loss") == 1

    # A random policy is never right, so tokens of high entropy are accepted for the field's update.
    train = options(
        dataset_limit=16,
        output_dir=folders / "run",
        max_steps=2,
        num_generations=4,
        steps_per_generation=2,
        max_completion_length=8,
        flow_path=folders / "flow",
        flow_accept="entropy",
    )
    script = folders / "script.py"
    script.write_text(TRAIN)
    done = launch([str(script), str(folders / "result"), *common, *train])
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((folders / f"result.{rank}").read_text()) for rank in (0, 1))
    assert first["before"] == second["before"] != first["field"]
    for name in ("field", "policy", "flow_loss", "deviation"):  # weights and global metrics agree
        assert first[name] == second[name], name
    assert len(first["flow_loss"]) == 2
    assert first["noise"] != second["noise"]  # each process draws its own noise
