"""Two real processes: the field and the policy stay identical on both, and fitting works."""

import json
import os
import subprocess
import sys

import pytest

TRAIN = """
import hashlib, json, sys
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig

options, args = parse_config((ScriptArguments, RLFRConfig), sys.argv[2:])
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


TRAIN_WITH_REFILLS = """
import hashlib, json, sys
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig

options, args = parse_config((ScriptArguments, RLFRConfig), sys.argv[2:])
trainer = build_trainer(options, args)
trainer.train()
logged = [h for h in trainer.state.log_history if "groups/refill_rounds" in h]
policy = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in trainer.model.parameters())).hexdigest()
names = ("groups/refill_rounds", "groups/mixed", "rewards/even/mean", "rlpr/baseline")
result = {"policy": policy, "logged": [{n: h[n] for n in names} for h in logged],
          "position": trainer.selector.stream.position}
open(f"{sys.argv[1]}.{trainer.accelerator.process_index}", "w").write(json.dumps(result))
"""


def test_refills_and_reference_probabilities_on_two_processes(folders, monkeypatch):
    """Groups are dropped on one process or the other; both must go on doing the same number of passes."""
    monkeypatch.setenv("RLFR_CACHE", str(folders / "cache"))
    (folders / "mine.py").write_text(
        "def even(completion_ids, **kwargs):\n    return [float(sum(ids) % 2 == 0) for ids in completion_ids]\n"
    )
    arguments = options(
        model_name_or_path=folders / "policy", dataset_name="digits", use_cpu="true", bf16="false", report_to="none",
        save_strategy="no", per_device_train_batch_size=4, learning_rate=1e-3, dataset_limit=17, method="rlvr",
        output_dir=folders / "run", max_steps=4, num_generations=2, steps_per_generation=2, max_completion_length=8,
        group_filter="mixed", refill_rounds=2, rlpr_mode="boxed", logging_steps=1,
    )  # fmt: skip
    arguments += ["--rewards", f"{folders / 'mine.py'}:even", "reference_probability", "--reward_weights", "1", "0.1"]
    script = folders / "script.py"
    script.write_text(TRAIN_WITH_REFILLS)
    done = launch([str(script), str(folders / "result"), *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((folders / f"result.{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first["position"] > 0 and any(h["groups/refill_rounds"] > 0 for h in first["logged"])
    cached = sorted((folders / "cache" / "reference_probability").glob("*.jsonl"))
    assert [path.stem[-2:] for path in cached] == ["-0", "-1"]
    keys = [json.loads(line)[0] for path in cached for line in path.read_text().splitlines() if line]
    assert len(keys) == len(set(keys)) == 17
