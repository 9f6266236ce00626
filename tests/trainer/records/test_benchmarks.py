"""Checkpoints are measured by `rlfr-eval` while training: scores become metrics, and a failure stops nothing."""

import json
import sys
from types import SimpleNamespace

import pytest

from rlfr_vlm.cli import main
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import BenchmarkOptions, ScriptArguments
from rlfr_vlm.trainer.records.benchmark_calls import Plan
from rlfr_vlm.trainer.records.benchmarks import MeasureCheckpoints, linked
from tests.eval.stub_server import IMPORTS

# Answers 0 to every question but one, which it answers as the checkpoint's step says.
SERVER = (
    IMPORTS
    + """
import json
step = int(sys.argv[2].rstrip("/").split("checkpoint-")[-1].split("step-")[-1].split("/")[0])
if step == 3:
    print("out of memory", flush=True)
    raise SystemExit(1)

class Handler(JsonHandler):
    def do_GET(self):
        self.reply({"object": "list", "data": [{"id": sys.argv[3], "object": "model", "created": 0, "owned_by": "x"}]})
    def do_POST(self):
        asked = json.dumps(self.body())
        self.reply(completion(sys.argv[3], "so \\\\boxed{%d}" % (2 if "1 plus 1" in asked and step > 1 else 0)))

serve(Handler, int(sys.argv[1]))
"""
)
TOY = """
name = "toy"
title = "Toy"
licence = "none"
n = 4
prompt = "chat"
[source]
repo = "nowhere"
[sampling]
max_tokens = 8
"""


@pytest.fixture
def options(tmp_path, monkeypatch):
    """Options of a small benchmark and a scripted server."""
    (tmp_path / "serve.py").write_text(SERVER)
    (tmp_path / "toy.toml").write_text(TOY)
    rows = [{"id": f"p{n}", "problem": f"What is {n} plus {n}?", "answer": str(2 * n)} for n in range(4)]
    (tmp_path / "toy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("RLFR_EVAL_SERVER_CMD", f"{sys.executable} {tmp_path}/serve.py {{port}} {{model}} {{name}}")
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))

    def build(**changes):
        arguments = f"--data-dir {tmp_path} --judge none"
        return BenchmarkOptions(
            **({"eval_benchmarks": [str(tmp_path / "toy.toml")], "eval_benchmark_args": arguments} | changes)
        )

    return build


def checkpoint(folder, step):
    """A folder that looks like a saved checkpoint."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    (made / "model.safetensors").write_bytes(bytes([step]))
    (made / "optimizer.pt").write_bytes(b"moments")
    return made


def saved(callback, folder, step, state=None):
    checkpoint(folder, step)
    state = state or SimpleNamespace(is_world_process_zero=True, best_metric=None, best_model_checkpoint=None)
    state.global_step = step
    callback.on_save(None, state, None)
    return state


@pytest.mark.parametrize("waits", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_scores_become_metrics_and_a_failure_stops_nothing(options, tmp_path, capsys, waits):
    run, logged = tmp_path / "run", []
    built = options(eval_benchmark_limit=3, eval_benchmark_wait=waits)
    callback = MeasureCheckpoints(Plan.of(built), built, str(run), logged.append)
    state = saved(callback, run, 1)
    if waits:
        assert len(logged) == 1
    saved(callback, run, 2, state)
    saved(callback, run, 3, state)  # its server ends at once
    callback.on_train_end(None, state, None)
    # limit 3: 0 plus 0 is right, and 1 plus 1 from step 2 on
    assert [(one["benchmark_step"], one["benchmark/toy"]) for one in logged] == [(1.0, 1 / 3), (2.0, 2 / 3)]
    assert logged[0]["benchmark/toy_low"] < 1 / 3 < logged[0]["benchmark/toy_high"]
    assert logged[0]["benchmark/toy_undecided"] == 0
    assert state.best_model_checkpoint == str(run / "checkpoint-2") and state.best_metric == 2 / 3
    output = capsys.readouterr().out
    assert "checkpoint-2: toy 0.667 [" in output
    assert "benchmarks of checkpoint-3 failed, training goes on: rlfr-eval lm ended with" in output
    lines = [json.loads(line) for line in (run / "benchmarks.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert not (run / "benchmarks" / "step-2" / "model").exists()  # the copy is gone
    # a run that goes on from step 1 forgets what came after
    state.global_step = 1
    callback.on_train_begin(None, state, None)
    assert [json.loads(line)["step"] for line in (run / "benchmarks.jsonl").read_text().splitlines()] == [1]
    assert sorted(path.name for path in (run / "benchmarks").iterdir()) == ["step-1"]


def test_only_steps_that_are_named_and_the_first_process(options, tmp_path, monkeypatch):
    built, measured = options(eval_benchmark_steps=4), []
    callback = MeasureCheckpoints(Plan.of(built), built, str(tmp_path / "run"), print)
    monkeypatch.setattr(Plan, "measure", lambda plan, model, folder: (measured.append(model.name), ({}, []))[1])
    for step in (2, 4, 6, 8):
        saved(callback, tmp_path / "run", step)
    callback.on_save(None, SimpleNamespace(is_world_process_zero=False, global_step=12), None)
    assert measured == ["checkpoint-4", "checkpoint-8"]


def test_a_copy_that_cannot_be_made_stops_nothing(options, tmp_path, monkeypatch, capsys):
    def full(checkpoint, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlfr_vlm.trainer.records.benchmarks.linked", full)
    built = options(eval_benchmark_wait=False)
    callback = MeasureCheckpoints(Plan.of(built), built, str(tmp_path / "run"), print)
    callback.on_train_end(None, saved(callback, tmp_path / "run", 1), None)
    assert "benchmarks of checkpoint-1 failed, training goes on: [Errno 28] No space left" in capsys.readouterr().out


def test_a_copy_has_the_model_alone(tmp_path):
    folder = linked(checkpoint(tmp_path, 7), tmp_path / "model")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").stat().st_ino == (
        tmp_path / "checkpoint-7" / "model.safetensors"
    ).stat().st_ino


def test_text_and_multimodal_benchmarks_and_devices(options, tmp_path):
    plan = Plan.of(options(eval_benchmarks=["math500", "MathVista_MINI"], eval_benchmark_devices="3"))
    assert (plan.text, plan.multimodal, plan.environment) == (
        ("math500",), ("MathVista_MINI",), {"CUDA_VISIBLE_DEVICES": "3"},
    )  # fmt: skip
    text, multimodal = plan.commands(tmp_path / "m", tmp_path / "out").values()
    assert text[3:7] == ["lm", "--suite", "math500", "--model"]
    assert multimodal[3:7] == ["vlm", "--data", "MathVista_MINI", "--model"]
    assert Plan.of(BenchmarkOptions()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_benchmarks": ["no-such.toml"]}, "eval_benchmarks cannot be measured: .*no-such.toml"),
        ({"eval_benchmark_args": "--judg"}, "eval_benchmarks cannot be measured: (?s:.*)--judg"),
        ({"eval_benchmark_args": "'open"}, 'eval_benchmark_args is "\'open": No closing quotation'),
    ],
)
def test_what_cannot_be_measured_stops_before_training(options, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        Plan.of(options(**changes)).check("model", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_limit_below_zero():
    with pytest.raises(UserError, match="eval_benchmark_limit is -1; it must be at least 0"):
        ScriptArguments(eval_benchmark_limit=-1)


@pytest.mark.slow
def test_a_run_measures_its_checkpoints(options, make_policy, processor, tmp_path, capsys):
    make_policy().save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    built = options()
    out = tmp_path / "run"
    arguments = (
        f"train --model_name_or_path {tmp_path}/policy --dataset_name digits --dataset_limit 16 --output_dir {out} "
        "--method rlvr --max_steps 2 --save_steps 1 --num_generations 2 --per_device_train_batch_size 4 "
        "--gradient_accumulation_steps 1 --steps_per_generation 1 --max_completion_length 4 --use_cpu true "
        f"--bf16 false --report_to none --eval_benchmarks {built.eval_benchmarks[0]}"
    ).split()
    assert main([*arguments, f"--eval_benchmark_args={built.eval_benchmark_args}"]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    measured = [(line["step"], line["benchmark/toy"]) for line in lines if "benchmark/toy" in line]
    assert measured == [(1, 0.25), (2, 0.5)]
    assert all("benchmark/toy" not in line for line in lines if "loss" in line)  # a line of its own
    assert f"in {out / 'checkpoint-2'}" in capsys.readouterr().out
