"""`rlfr fit-flow` and `rlfr train` end to end on a saved tiny policy, and their mistakes."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from rlfr_vlm.cli import main
from rlfr_vlm.errors import UserError
from rlfr_vlm.report.read_run import is_finished
from tests.trainer.launching import CLI, environment

QUICK = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]


@pytest.fixture
def policy_folder(make_policy, processor, tmp_path):
    folder = tmp_path / "policy"
    make_policy().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def fit_arguments(policy_folder: str, out: str, *extra: str) -> list[str]:
    return [
        "fit-flow",
        "--model_name_or_path",
        policy_folder,
        "--dataset_name",
        "digits",
        "--dataset_limit",
        "40",
        "--output_dir",
        out,
        "--flow_depth",
        "1",
        "--max_steps",
        "3",
        "--per_device_train_batch_size",
        "8",
        "--learning_rate",
        "1e-3",
        "--save_strategy",
        "no",
        *QUICK,
        *extra,
    ]


def train_arguments(policy_folder: str, out: str, *extra: str) -> list[str]:
    return [
        "train",
        "--model_name_or_path",
        policy_folder,
        "--dataset_name",
        "digits",
        "--dataset_limit",
        "16",
        "--output_dir",
        out,
        "--max_steps",
        "2",
        "--num_generations",
        "4",
        "--per_device_train_batch_size",
        "8",
        "--max_completion_length",
        "8",
        "--save_strategy",
        "no",
        *QUICK,
        *extra,
    ]


def test_fit_then_train_with_flow_rewards(policy_folder, tmp_path, capsys):
    flow, run = str(tmp_path / "flow"), str(tmp_path / "run")
    assert main(fit_arguments(policy_folder, flow)) == 0
    shown = capsys.readouterr().out
    assert "held-out loss" in shown and "layer 1" in shown and "t 0.8 1.0" in shown
    spec = json.loads((tmp_path / "flow" / "flow" / "flow.json").read_text())
    assert spec["layer_indices"] == [1, 2, 3] and spec["steps"] == 3 and spec["final_loss"] > 0

    assert main(train_arguments(policy_folder, run, "--flow_path", flow + "/flow")) == 0
    assert {"config.json", "model.safetensors", "config.yaml", "metrics.jsonl", "flow"} <= set(os.listdir(run))
    resolved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert resolved["flow_path"] == flow + "/flow" and resolved["dataset_name"] == "digits"
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if "outcome/accuracy" in s] == [1, 2]

    from transformers import AutoModelForImageTextToText, AutoProcessor

    AutoModelForImageTextToText.from_pretrained(run)
    AutoProcessor.from_pretrained(run)


@pytest.mark.parametrize("updates", ["1", "2"])
def test_reference_policy_is_banned_too_and_its_pass_is_not_scored(policy_folder, tmp_path, updates):
    """With a KL term TRL runs a reference pass as well; one update a rollout means no old-log-prob pass before it."""
    flow, run = str(tmp_path / "flow"), tmp_path / "run"
    assert main(fit_arguments(policy_folder, flow)) == 0
    extra = ["--flow_path", flow, "--beta", "0.05", "--steps_per_generation", updates]
    assert main(train_arguments(policy_folder, str(run), *extra)) == 0
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-6)  # the policy is still its own reference, bans included
    assert steps[0]["flow/deviation_wrong"] > 0


def test_rlvr_needs_no_field(policy_folder, tmp_path):
    assert main(train_arguments(policy_folder, str(tmp_path / "run"), "--method", "rlvr")) == 0
    assert not (tmp_path / "run" / "flow").exists()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--flow_path", "nothing"], "No flow field at nothing"),
        ([], "flow_path is not set. Fit a field with `rlfr fit-flow`"),
        (["--method", "rlvr", "--model_name_or_path", "./nothing"], "No model at ./nothing"),
        (["--method", "rlvr", "--model_name_or_path", "no-org/no-model"], "Cannot load the model 'no-org/no-model'"),
        (["--method", "rlvr", "--dataset_name", "./nothing.jsonl"], "No dataset at ./nothing.jsonl"),
        (["--method", "rlvr", "--rewards", "speed"], "Unknown reward 'speed'"),
        (["--flow_cof", "1"], "Did you mean 'flow_coef'?"),
        (["--num_generations", "1"], "num_generations is 1"),
        (["--method", "rlvr", "--resume", "nothing"], "No checkpoint at nothing"),
        (["--method", "rlvr", "--eval_strategy", "steps", "--eval_dataset_split", "train"], "are the training rows"),
        (
            ["--method", "rlvr", "--use_peft", "true", "--lora_target_modules", "q_prj"],
            "'q_prj', which is not a linear",
        ),
        (["--method", "rlvr", "--use_peft", "true", "--lora_r", "0"], "lora_r is 0"),
        (["--method", "rlvr", "--attn_implementation", "flash_attention_2"], "Cannot load the model"),
        (["--method", "rlvr", "--config", "nothing.yaml"], "No configuration file at nothing.yaml"),
    ],
)
def test_mistakes_in_training_give_one_message(policy_folder, tmp_path, capsys, extra, message):
    assert main(train_arguments(policy_folder, str(tmp_path / "run"), *extra)) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.startswith("rlfr: ") and "Traceback" not in shown


def test_bad_rows_give_one_message(policy_folder, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    (tmp_path / "bad.png").write_bytes(b"not an image")
    for row, message in [
        ({"prompt": "q"}, "no column 'answer'"),
        (
            {"prompt": "q", "answer": "7", "images": ["gone.png"]},
            "are bad (image missing 4), more than bad_row_limit",
        ),
        ({"prompt": "q", "answer": "7", "images": ["bad.png"]}, "are bad (image unreadable 4), more than"),
    ]:
        rows.write_text("\n".join([json.dumps(row)] * 4))
        extra = ["--method", "rlvr", "--dataset_name", str(rows)]
        assert main(train_arguments(policy_folder, str(tmp_path / "run"), *extra)) == 2
        shown = capsys.readouterr().err
        assert message in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--flow_layers", "0.25", "1.5"], "Layer percentile 1.5 is outside (0, 1]"),
        (["--flow_layers", "0.0"], "Layer percentile 0.0 is outside"),
        (["--flow_context_mode", "after"], "Unknown context mode 'after'"),
        (["--eval_fraction", "0"], "leave 0 held-out"),
        (["--model_name_or_path", ""], "model_name_or_path is not set"),
    ],
)
def test_mistakes_in_fitting_give_one_message(policy_folder, tmp_path, capsys, extra, message):
    assert main(fit_arguments(policy_folder, str(tmp_path / "flow"), *extra)) == 2
    assert message in capsys.readouterr().err


def test_field_of_another_policy_is_refused(policy_folder, make_policy, processor, tmp_path, capsys):
    assert main(fit_arguments(policy_folder, str(tmp_path / "flow"))) == 0
    wide = tmp_path / "wide"
    make_policy(hidden_size=64).save_pretrained(wide)
    processor.save_pretrained(wide)
    arguments = train_arguments(str(wide), str(tmp_path / "run"), "--flow_path", str(tmp_path / "flow" / "flow"))
    assert main(arguments) == 2
    assert "hidden width: field 32, policy 64" in capsys.readouterr().err
    again = train_arguments(
        policy_folder,
        str(tmp_path / "run"),
        "--flow_path",
        str(tmp_path / "flow" / "flow"),
        "--flow_context_mode",
        "token_post",
    )
    assert main(again) == 2
    assert "fitted with context token_pre (shift 1)" in capsys.readouterr().err


def interrupt_training(run: Path, pid: int, ended: threading.Event) -> None:
    """Send Ctrl-C to a process once its run has logged a step, unless it ended before."""
    metrics = run / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if ended.wait(0.1):
            return
    os.kill(pid, signal.SIGINT)


def in_this_process(arguments: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    ended = threading.Event()
    interrupting = threading.Thread(target=interrupt_training, args=(run, os.getpid(), ended))
    interrupting.start()
    try:
        code = main(arguments)
    finally:
        ended.set()
        interrupting.join()
    return code, *capsys.readouterr()


def in_its_own_process(arguments: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    command = [sys.executable, "-c", CLI, *arguments]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ended = threading.Event()
    interrupting = threading.Thread(target=interrupt_training, args=(run, process.pid, ended))
    interrupting.start()
    out, err = process.communicate(timeout=240)
    ended.set()
    interrupting.join()
    return process.returncode, out, err


@pytest.mark.parametrize("start", [in_this_process, pytest.param(in_its_own_process, marks=pytest.mark.slow)])
def test_interrupt_keeps_a_checkpoint_and_resume_goes_on(policy_folder, tmp_path, capsys, start):
    run = tmp_path / "run"
    arguments = train_arguments(policy_folder, str(run), "--method", "rlvr", "--max_steps", "400")
    code, out, err = start(arguments, run, capsys)
    assert code == 130, err
    assert "Traceback" not in err and "stopped; a checkpoint is in" in out
    checkpoints = list(run.glob("checkpoint-*"))
    assert len(checkpoints) == 1
    step = int(checkpoints[0].name.split("-")[1])
    assert not is_finished(run)

    arguments = train_arguments(
        policy_folder, str(run), "--method", "rlvr", "--max_steps", str(step + 1), "--resume", "auto"
    )
    assert main(arguments) == 0
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if "outcome/accuracy" in s] == list(range(1, step + 2))
    assert is_finished(run)


def test_resume_skips_a_checkpoint_that_was_cut_off(tmp_path, capsys):
    from rlfr_vlm.checkpoint import mark_complete
    from rlfr_vlm.commands.run_trainer import find_checkpoint, refuse_to_continue

    run = str(tmp_path)
    assert find_checkpoint("auto", run) is None  # a run that was killed before its first checkpoint
    for step in (2, 10, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    with pytest.raises(UserError, match=r"No checkpoint in .* is complete"):
        find_checkpoint("auto", run)
    for step in (2, 9):
        mark_complete(tmp_path / f"checkpoint-{step}", processes=1)
    newest = find_checkpoint("auto", run)
    assert newest == str(tmp_path / "checkpoint-9")
    assert "skipping" in (said := capsys.readouterr().out) and "checkpoint-10: complete.json is missing" in said
    with pytest.raises(UserError, match=r"is not complete: complete\.json is missing"):
        find_checkpoint(str(tmp_path / "checkpoint-10"), run)
    refuse_to_continue(tmp_path / "checkpoint-9", tmp_path, 1)  # the damaged one after it is no matter
    with pytest.raises(UserError, match=r"written by 1 process\(es\), and this run has 2"):
        refuse_to_continue(tmp_path / "checkpoint-9", tmp_path, 2)
    with pytest.raises(UserError, match="has later checkpoints, such as checkpoint-9"):
        refuse_to_continue(tmp_path / "checkpoint-2", tmp_path, 1)
    refuse_to_continue(tmp_path / "checkpoint-2", tmp_path / "other", 1)


def test_a_folder_that_holds_a_run_is_not_written_over(policy_folder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    assert main(train_arguments(policy_folder, str(run), "--method", "rlvr")) == 2
    assert "holds a run already. Go on with it by `--resume auto`" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_eval_only_measures_and_trains_nothing(policy_folder, tmp_path, capsys):
    run = tmp_path / "run"
    arguments = train_arguments(policy_folder, str(run), "--method", "rlvr", "--eval_rows", "10", "--eval-only")
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "held-out accuracy (n = 10): greedy 0.000 [0.000, 0.278]; sampled" in output
    assert output.count(f"measured policy: {policy_folder}, as it is without training; --resume") == 1
    assert output.count("held-out accuracy") == 1
    written = json.loads((run / "evaluation.json").read_text())
    assert written["eval_rows"] == 10 and written["checkpoint"] is None
    assert written["policy"] == policy_folder
    assert not (run / "model.safetensors").exists() and not (run / "metrics.jsonl").exists()


def test_eval_only_measures_the_checkpoint_that_is_named(
    policy_folder, make_policy, processor, tmp_path, monkeypatch, capsys
):
    """Any one, of a run with any number of processes, and beside later ones."""
    import torch

    from rlfr_vlm.checkpoint import mark_complete
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    run, saved = tmp_path / "run", make_policy(seed=9)
    for step in (2, 4):
        saved.save_pretrained(run / f"checkpoint-{step}")
        mark_complete(run / f"checkpoint-{step}", processes=8)
    measured, evaluate = [], RLFRTrainer.evaluate
    monkeypatch.setattr(RLFRTrainer, "evaluate", lambda self: measured.append(self.model) or evaluate(self))
    arguments = train_arguments(policy_folder, str(run), "--method", "rlvr", "--eval_rows", "10", "--eval-only")
    assert main([*arguments, "--resume", str(run / "checkpoint-2")]) == 0
    weights = dict(measured[0].named_parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in saved.named_parameters())
    assert json.loads((run / "evaluation.json").read_text())["checkpoint"] == str(run / "checkpoint-2")
    assert f"measured policy: {run / 'checkpoint-2'}\n" in capsys.readouterr().out


def test_a_resumed_run_logs_no_step_twice(tmp_path):
    from types import SimpleNamespace

    from rlfr_vlm.trainer.records.callbacks import MetricsFile

    lines = "".join(json.dumps({"step": step, "loss": 0.0}) + "\n" for step in range(1, 6)) + '{"step": 6, "lo'
    (tmp_path / "metrics.jsonl").write_text(lines)
    state = SimpleNamespace(is_world_process_zero=True, global_step=4)
    MetricsFile(str(tmp_path)).on_train_begin(None, state, None)
    kept = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert kept == [1, 2, 3, 4]


def test_text_only_policy_fits_and_trains(make_text_policy, text_tokenizer, tmp_path, capsys):
    """From files to trained weights with a plain tokenizer that has no pad token, as Llama's has none."""
    text_tokenizer.pad_token = None
    make_text_policy().save_pretrained(tmp_path / "policy")
    text_tokenizer.save_pretrained(tmp_path / "policy")
    rows = [{"prompt": "sum?", "answer": "7", "response": r"5 + 2 = 7. \boxed{7}"}] * 40
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ["--dataset_name", str(tmp_path / "rows.jsonl")]
    policy, flow, run = str(tmp_path / "policy"), str(tmp_path / "flow"), str(tmp_path / "run")
    assert main(fit_arguments(policy, flow, *data)) == 0
    assert main(train_arguments(policy, run, *data, "--flow_path", flow)) == 0
    assert main(train_arguments(policy, run + "-2", "--flow_path", flow)) == 2
    assert "the row has images, but the policy is text-only" in capsys.readouterr().err


def test_pixel_limits_reach_the_processor(policy_folder):
    from PIL import Image

    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.policy import load_policy

    tokens = []
    for limit in (28 * 28 * 5, 28 * 28 * 17):
        _, processor = load_policy(RunOptions(model_name_or_path=policy_folder, image_max_pixels=limit))
        batch = processor(text=["<|image_pad|>"], images=[Image.new("RGB", (300, 300))], return_tensors="pt")
        tokens.append((batch["input_ids"] == processor.image_token_id).sum().item())
    assert tokens == [4, 16]  # one token per 28 x 28 pixels, 2 x 2 and 4 x 4 of them


def test_full_disk_while_saving_is_one_message(policy_folder, tmp_path, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    assert main(fit_arguments(policy_folder, str(tmp_path / "flow"))) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert not (tmp_path / "flow" / "flow").exists()
