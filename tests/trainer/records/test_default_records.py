"""A trainer that is used from Python writes what the commands write, and stops as they do."""

import json
import os
import signal

import pytest
import yaml
from transformers import TrainerCallback

from rlfr_vlm.checkpoint import newest_complete
from rlfr_vlm.errors import UserError
from rlfr_vlm.report.read_run import read_run
from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer
from rlfr_vlm.trainer.records.callbacks import MetricsFile
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer


@pytest.fixture
def make(make_policy, processor, digits, arguments):
    def build(callbacks=None, **changes):
        args = RLFRConfig(**arguments(method="rlvr", max_completion_length=4, **changes))
        return RLFRTrainer(make_policy(), "accuracy", args, digits, processing_class=processor, callbacks=callbacks)

    return build


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_python_writes_what_the_command_writes(make, tmp_path, capsys):
    make(save_strategy="steps", save_steps=2, disable_tqdm=False).train()
    run = tmp_path / "run"
    config, record = yaml.safe_load((run / "config.yaml").read_text()), json.loads((run / "run.json").read_text())
    assert (config["method"], config["max_steps"], config["num_generations"]) == ("rlvr", 2, 4)
    assert record["data"]["rows"] == 32 and record["earlier"] == [] and record["seed"] == 42
    assert set(steps_of(run)) == {1, 2} and read_run(run).metrics
    captured = capsys.readouterr()
    assert "rlvr: " in captured.err and "2/2" in captured.err  # the commands' bar
    assert "'loss'" not in captured.out  # and no line of transformers' for each step


def test_a_second_run_does_not_replace_the_first_and_a_resume_goes_on(make, tmp_path):
    make(save_strategy="steps", save_steps=2).train()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    with pytest.raises(
        UserError, match=r"holds a run already. Go on with it by trainer\.train\(resume_from_checkpoint"
    ):
        make().train()
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == metrics
    make(save_strategy="steps", save_steps=2, max_steps=4).train(resume_from_checkpoint=True)
    assert sorted(set(steps_of(tmp_path / "run"))) == [1, 2, 3, 4]
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["earlier"]) == 1


def test_ctrl_c_saves_a_checkpoint_and_returns(make, tmp_path):
    class Interrupt(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    trainer = make([Interrupt()], max_steps=50, steps_per_generation=1)
    trainer.train()
    assert 1 < trainer.state.global_step < 50 and signal.getsignal(signal.SIGINT) is before
    assert newest_complete(tmp_path / "run").name == f"checkpoint-{trainer.state.global_step}"


def test_callbacks_of_ones_own_take_the_place_of_all(make, tmp_path):
    trainer = make([MetricsFile(str(tmp_path / "elsewhere"))])
    assert sum(isinstance(callback, MetricsFile) for callback in trainer.callback_handler.callbacks) == 1
    trainer.train()
    assert steps_of(tmp_path / "elsewhere") and not (tmp_path / "run" / "config.yaml").exists()


def test_fitting_keeps_the_same_records(make_policy, processor, digits, tmp_path):
    args = FlowFitConfig(str(tmp_path / "fit"), max_steps=2, per_device_train_batch_size=8, use_cpu=True, report_to=[],
                         flow_depth=1, logging_steps=1, disable_tqdm=True)  # fmt: skip
    FlowFitTrainer(make_policy(), args, digits, processing_class=processor).train()
    assert steps_of(tmp_path / "fit")[:2] == [1, 2]
    assert yaml.safe_load((tmp_path / "fit" / "config.yaml").read_text())["flow_depth"] == 1
    assert json.loads((tmp_path / "fit" / "run.json").read_text())["data"]["rows"] < 32  # some are held out
