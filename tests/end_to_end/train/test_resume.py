"""Checkpoints load back into the policy, by published names, in one process or two; no kill loses more than a step."""

import importlib.util
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlfr_vlm.checkpoint import checkpoints, damage
from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.resume import load_policy_weights
from tests.trainer.launching import CLI, environment, launch, options, torchrun, zero

RUN = Path(__file__).with_name("resume_run.py")


def test_published_names_are_translated_and_nothing_is_left_out(make_policy, tmp_path):
    saved, other = make_policy(seed=1), make_policy(seed=2)
    saved.save_pretrained(tmp_path)
    load_policy_weights(other, tmp_path)
    for name, weight in saved.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_checkpoint_of_another_policy_is_refused(make_policy, tmp_path):
    make_policy(hidden_size=64).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not hold this policy's weights"):
        load_policy_weights(make_policy(), tmp_path)
    with pytest.raises(UserError, match="does not hold"):
        load_policy_weights(make_policy(), tmp_path / "nothing")


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def metrics_of(trainer) -> list[dict]:
    timed = ("seconds", "time", "runtime", "per_second", "memory")
    return [{k: v for k, v in entry.items() if not any(word in k for word in timed)}
            for entry in trainer.state.log_history if "loss" in entry]  # fmt: skip


@pytest.mark.parametrize("flow", [None, "new"])
def test_train_four_equals_train_two_and_resume_two(make_trainer, make_policy, tmp_path, flow):
    whole = make_trainer(make_policy(), flow=flow, max_steps=4, output_dir=str(tmp_path / "whole"))
    whole.train()
    saving = {"output_dir": str(tmp_path / "parts"), "save_strategy": "steps", "save_steps": 2}
    first = make_trainer(make_policy(), flow=flow, max_steps=2, **saving)
    first.train()
    second = make_trainer(make_policy(), flow=flow, max_steps=4, **saving)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert equal(weights_of(second.model), weights_of(whole.model))
    assert len(metrics_of(whole)) == 4
    assert json.dumps(metrics_of(second), sort_keys=True) == json.dumps(metrics_of(whole), sort_keys=True)  # with NaN
    if flow:
        assert equal(weights_of(second.flow.field), weights_of(whole.flow.field))


def test_the_gate_continues_from_a_checkpoint(make_trainer, make_policy, tmp_path):
    """Open in the checkpoint: the next rollout counts, and its pairs join those of the checkpoint's window."""
    arguments = {"flow": "new", "flow_gate": "auto", "save_strategy": "steps", "save_steps": 2}
    first = make_trainer(make_policy(), **arguments)
    first.train()
    first.flow_reward.gate.open = True
    first.save_extra_state(tmp_path / "run" / "checkpoint-2")
    second = make_trainer(make_policy(), max_steps=4, **arguments)
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert [entry["flow/gate"] for entry in second.state.log_history if "flow/gate" in entry] == [0, 1]
    before, after = first.flow_reward.gate.rollouts, second.flow_reward.gate.rollouts
    assert len(after) == 2 and after[0] == before[0]


def test_a_run_resumed_in_its_second_epoch_sees_the_prompts_in_that_epochs_order(make_trainer, make_policy, digits):
    """Eight prompts, one a step: step 12 is in the middle of the second epoch, step 16 at its end."""

    def seen(steps, resume=None):
        settings = {"steps_per_generation": 1, "max_steps": steps, "save_strategy": "steps", "save_steps": 4}
        trainer = make_trainer(make_policy(), dataset=digits.select(range(8)), **settings)
        order, generate = [], trainer._generate
        trainer._generate = lambda prompts: (
            order.append(prompts[0][0]["content"][0]["image"].tobytes()) or generate(prompts)
        )
        trainer.train(resume_from_checkpoint=resume)
        return order, trainer

    whole, trainer = seen(20)
    assert whole[:8] != whole[8:16]
    for step in (12, 16):
        order, resumed = seen(20, f"{trainer.args.output_dir}/checkpoint-{step}")
        assert order == whole[step:]
        assert equal(weights_of(resumed.model), weights_of(trainer.model))


def test_saving_waits_for_the_end_of_a_rollout(make_trainer, make_policy, tmp_path):
    """Two updates a rollout: what is asked for after the first update is saved after the second."""
    trainer = make_trainer(make_policy(), flow="new", max_steps=5, save_strategy="steps", save_steps=3)
    trainer.train()
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]


def test_an_interrupt_waits_for_the_end_of_the_rollout(make_trainer, make_policy, tmp_path):
    """Callbacks that are added later do not get past it: two updates a rollout, interrupted after the first."""
    from rlfr_vlm.trainer.records.callbacks import StopOnInterrupt

    trainer = make_trainer(make_policy(), max_steps=8, save_strategy="steps", save_steps=100)
    interrupt = StopOnInterrupt()
    trainer.add_callback(interrupt)
    interrupt.interrupted = True
    trainer.train()
    assert trainer.state.global_step == 2
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-2"]


def test_a_signal_that_comes_after_another_processs_is_the_first_here():
    from rlfr_vlm.trainer.records.callbacks import StopOnInterrupt

    interrupt = StopOnInterrupt()
    interrupt.interrupted = True  # another process has told
    interrupt._interrupt(2, None)
    with pytest.raises(KeyboardInterrupt):
        interrupt._interrupt(2, None)


def test_the_best_is_saved_named_and_kept(make_trainer, make_policy, digits, monkeypatch, tmp_path):
    """Evaluated after every update, saved at the end: the best at step 2 is there, although nobody asked for it."""
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.1, 0.0])
    trainer = make_trainer(
        make_policy(), max_steps=6, steps_per_generation=1, eval_dataset=digits, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=3, save_total_limit=1,
    )  # fmt: skip
    monkeypatch.setattr(
        "rlfr_vlm.trainer.held_out_evaluation.evaluate_held_out", lambda *_, **__: {"eval_greedy": next(scores)}
    )
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "run" / "checkpoint-2")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-2", "checkpoint-6"]
    assert trainer.args.save_total_limit == 1


@pytest.fixture(scope="module")
def folders(make_policy, processor, tmp_path_factory):
    """A policy and a flow field for it."""
    from rlfr_vlm.flow import FlowSpec, build_field, save_field

    tmp_path = tmp_path_factory.mktemp("resume")
    policy = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5))
    save_field(tmp_path / "flow", build_field(spec), spec)
    (tmp_path / "mine.py").write_text(
        "def even(completion_ids, **kwargs):\n    return [float(sum(ids) % 2 == 0) for ids in completion_ids]\n"
    )
    return tmp_path


def settings(folders: Path, **changes: object) -> dict[str, object]:
    flow = {"method": "rlfr", "flow_path": folders / "flow", "flow_accept": "entropy"}
    return flow | {
        "model_name_or_path": folders / "policy", "dataset_name": "digits", "dataset_limit": 32, "bf16": "false",
        "report_to": "none", "save_strategy": "steps", "per_device_train_batch_size": 4, "learning_rate": 1e-3,
        "lr_scheduler_type": "constant", "num_generations": 4, "max_completion_length": 8,
        "rewards": f"{folders}/mine.py:even",
    } | changes  # fmt: skip


def numbers(folder: Path) -> str:
    """The logged metrics without times, as text, for NaN."""
    timed = ("seconds", "time", "runtime", "per_second", "memory")
    log = json.loads((folder / "log.json").read_text())
    steps = [{k: v for k, v in h.items() if not any(w in k for w in timed)} for h in log if "loss" in h]
    return json.dumps(steps, sort_keys=True)


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train_on_two_processes(folders: Path, launcher: list[str], runs: dict[str, dict[str, object]]) -> Path:
    """Train each run whole and in parts, all in one launch: starting the processes takes longer than a run."""
    described = [
        {"folder": str(folders / name), "arguments": options(settings(folders, **changes))}
        for name, changes in runs.items()
    ]
    file = folders / f"{'-'.join(runs)}.json"
    file.write_text(json.dumps(described))
    launch(launcher, [str(RUN), str(file)])
    return folders


@pytest.fixture(scope="module")
def torch_runs(folders):
    """The folder that holds `rlvr` and `rlfr`."""
    changes = {"use_cpu": "true"}
    return train_on_two_processes(
        folders, torchrun(), {"rlvr": changes | {"method": "rlvr", "flow_path": ""}, "rlfr": changes}
    )


@pytest.fixture(scope="module")
def zero3_runs(folders):
    """The folder that holds `zero3`."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    return train_on_two_processes(folders, zero(3), {"zero3": {"ddp_backend": "gloo"}})


@pytest.mark.slow
@pytest.mark.parametrize("how", ["rlfr", "rlvr", "zero3"])
def test_four_steps_are_two_and_two_on_two_processes(request, how):
    folder = request.getfixturevalue("zero3_runs" if how == "zero3" else "torch_runs") / how
    whole, parts, half = folder / "whole", folder / "parts", folder / "half"
    assert same_weights(whole / "model.safetensors", parts / "model.safetensors")
    assert not same_weights(whole / "model.safetensors", half / "model.safetensors")
    assert numbers(whole) == numbers(parts)
    for rank in (0, 1) if how != "rlvr" else ():
        field = [path / f"field-{rank}" / "flow.safetensors" for path in (whole, parts, half)]
        assert same_weights(field[0], field[1]) and not same_weights(field[0], field[2])


@pytest.mark.slow
@pytest.mark.timeout(1500)  # 22 starts of training
def test_a_run_killed_at_any_moment_ends_with_the_same_weights(folders):
    """kill -9 at 20 random moments, some of them while a checkpoint is written."""
    common = settings(folders, use_cpu="true", max_steps=120, save_steps=1, save_total_limit=2)
    command = [sys.executable, "-c", CLI, "train", *options(common)]
    whole, killed = folders / "whole", folders / "killed"
    subprocess.run([*command, "--output_dir", str(whole)], env=environment(), check=True, capture_output=True)
    chance, kills, saving, done = random.Random(0), 0, 0, None
    while done is None:
        process = subprocess.Popen([*command, "--output_dir", str(killed), "--resume", "auto"], env=environment(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        before = (checkpoints(killed)[-1:] or [0])[0]
        while process.poll() is None and (checkpoints(killed)[-1:] or [0])[0] == before:
            time.sleep(0.01)  # it has begun once there is a new checkpoint
        if kills < 20 and process.poll() is None:
            deadline = time.monotonic() + chance.uniform(0, 0.5)
            while time.monotonic() < deadline and not (kills % 2 and (killed / ".saving").exists()):
                time.sleep(0.001)
            saving += (killed / ".saving").exists()
            process.send_signal(signal.SIGKILL)
            kills += 1
            process.wait()
            assert damage(checkpoints(killed)[-1]) is None
        else:
            done = process.communicate()[1]
            assert process.returncode == 0, done.decode()[-3000:]
    assert kills >= 20 and saving >= 3
    for name in ("model.safetensors", "flow/flow.safetensors"):
        assert same_weights(whole / name, killed / name)
    assert len(checkpoints(killed)) == 2
    shutil.rmtree(killed)
