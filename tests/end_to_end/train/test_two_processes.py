"""Two real processes: the field and the policy stay identical on both, and fitting works."""

import json

import pytest

from tests.trainer.launching import launch, options, torchrun

# Fits a field, trains with flow rewards, then with refills, in the same processes: to start them takes longest.
FIT_AND_TRAIN = """
import hashlib, json, sys
from rlfr_vlm import cli
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from tests.trainer.launching import skip_unused_parts

skip_unused_parts()
out, fit_arguments, flow_arguments, refill_arguments = sys.argv[1], *(json.loads(text) for text in sys.argv[2:])
assert cli.main(["fit-flow", *fit_arguments]) == 0
digest = lambda module: hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in module.parameters())).hexdigest()

trainer = build_trainer(*parse_config((ScriptArguments, RLFRConfig), flow_arguments))
before = digest(trainer.flow.field)
trainer.train()
logged = [h for h in trainer.state.log_history if "flow/loss" in h]
result = {"before": before, "field": digest(trainer.flow.field), "policy": digest(trainer.model),
          "noise": trainer.flow.generator.get_state().sum().item(), "flow_loss": [h["flow/loss"] for h in logged],
          "deviation": [h["flow/deviation_wrong"] for h in logged if "flow/deviation_wrong" in h]}
open(f"{out}-flow.{trainer.accelerator.process_index}", "w").write(json.dumps(result))
trainer.accelerator.free_memory()

trainer = build_trainer(*parse_config((ScriptArguments, RLFRConfig), refill_arguments))
trainer.train()
logged = [h for h in trainer.state.log_history if "groups/refill_rounds" in h]
names = ("groups/refill_rounds", "groups/mixed", "rewards/even/mean", "rlpr/baseline")
result = {"policy": digest(trainer.model), "logged": [{n: h[n] for n in names} for h in logged],
          "position": trainer.selector.stream.position}
open(f"{out}-refill.{trainer.accelerator.process_index}", "w").write(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folders(make_policy, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    make_policy().save_pretrained(folder / "policy")
    processor.save_pretrained(folder / "policy")
    (folder / "mine.py").write_text(
        "def even(completion_ids, **kwargs):\n    return [float(sum(ids) % 2 == 0) for ids in completion_ids]\n"
    )
    return folder


def common(folders):
    return options({
        "model_name_or_path": folders / "policy",
        "dataset_name": "digits",
        "use_cpu": "true",
        "bf16": "false",
        "report_to": "none",
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
    })  # fmt: skip


@pytest.fixture(scope="module")
def trained(folders):
    """The folder that holds what each process wrote: `result-flow.0`, `result-refill.1` and so on, and `shown.txt`."""
    flow = folders / "flow"
    fit = options({"dataset_limit": 40, "output_dir": flow, "flow_depth": 1, "max_steps": 3})
    # A random policy is never right, so tokens of high entropy are accepted for the field's update.
    train = options({
        "dataset_limit": 16, "output_dir": folders / "run", "max_steps": 2, "num_generations": 4,
        "steps_per_generation": 2, "max_completion_length": 8, "flow_path": flow, "flow_accept": "entropy",
    })  # fmt: skip
    refill = options({
        "dataset_limit": 17, "method": "rlvr", "output_dir": folders / "refill", "max_steps": 4, "num_generations": 2,
        "steps_per_generation": 2, "max_completion_length": 8, "group_filter": "mixed", "refill_rounds": 2,
        "rlpr_mode": "boxed", "logging_steps": 1,
    })  # fmt: skip
    refill += ["--rewards", f"{folders / 'mine.py'}:even", "reference_probability", "--reward_weights", "1", "0.1"]
    script = folders / "script.py"
    script.write_text(FIT_AND_TRAIN)
    arguments = [json.dumps([*common(folders), *own]) for own in (fit, train, refill)]
    shown = launch(torchrun(), [str(script), str(folders / "result"), *arguments], RLFR_CACHE=str(folders / "cache"))
    (folders / "shown.txt").write_text(shown)
    return folders


def test_fit_on_two_processes(trained):
    assert (trained / "shown.txt").read_text().count("held-out loss") == 1


def test_train_on_two_processes(trained):
    first, second = (json.loads((trained / f"result-flow.{rank}").read_text()) for rank in (0, 1))
    assert first["before"] == second["before"] != first["field"]
    for name in ("field", "policy", "flow_loss", "deviation"):  # weights and global metrics agree
        assert first[name] == second[name], name
    assert len(first["flow_loss"]) == 2
    assert first["noise"] != second["noise"]  # each process draws its own noise


def test_refills_and_reference_probabilities_on_two_processes(trained):
    """Groups are dropped on one process or the other; both must go on doing the same number of passes."""
    first, second = (json.loads((trained / f"result-refill.{rank}").read_text()) for rank in (0, 1))
    assert first == second
    assert first["position"] > 0 and any(h["groups/refill_rounds"] > 0 for h in first["logged"])
    cached = sorted((trained / "cache" / "reference_probability").glob("*.jsonl"))
    assert [path.stem[-2:] for path in cached] == ["-0", "-1"]
    keys = [json.loads(line)[0] for path in cached for line in path.read_text().splitlines() if line]
    assert len(keys) == len(set(keys)) == 17
