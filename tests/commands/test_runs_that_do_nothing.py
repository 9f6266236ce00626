"""Commands that would do nothing, or damage a run, without an error: too few rows, finished runs, changed resumes."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from rlfr_vlm.cli import main

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none", "--gradient_checkpointing", "false"]
# One rollout has 4 prompts: 8 responses a micro-batch x 2 of them / 4 responses a prompt.
SIZES = ["--num_generations", "4", "--per_device_train_batch_size", "8", "--steps_per_generation", "2"]


def save(policy, processor, folder) -> str:
    policy.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def policy_folder(make_policy, processor, tmp_path_factory):
    return save(make_policy(), processor, tmp_path_factory.mktemp("policy"))


def train(policy: str, out: Path, *extra: str) -> list[str]:
    arguments = ["--model_name_or_path", policy, "--dataset_name", "digits", "--output_dir", str(out)]
    return ["train", "--method", "rlvr", *arguments, "--max_completion_length", "8", *SIZES, *QUICK, *extra]


@pytest.fixture
def loads(monkeypatch):
    """The names of the policies that are loaded."""
    from rlfr_vlm import policy

    names, load = [], policy.load_policy
    monkeypatch.setattr(
        policy,
        "load_policy",
        lambda options, **kwargs: names.append(options.model_name_or_path) or load(options, **kwargs),
    )
    return names


# Fewer rows than one rollout


@pytest.mark.parametrize("steps", [[], ["--max_steps", "2"]], ids=["epochs", "max_steps"])
def test_fewer_rows_than_the_prompts_of_a_rollout_are_refused(policy_folder, tmp_path, capsys, loads, steps):
    arguments = train(policy_folder, tmp_path / "run", "--dataset_limit", "2", "--save_strategy", "no", *steps)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "2 rows" in captured.err and "4 prompts" in captured.err
    assert all(name in captured.err for name in ("num_generations", "per_device_train_batch_size"))
    assert "trained policy in" not in captured.out and loads == []


def test_a_shipped_recipe_refuses_a_hundred_rows(tmp_path, capsys):
    """The recipe has 1024 responses a rollout, 8 to a prompt."""
    lines = [json.dumps({"prompt": f"sum of {i} and 1?", "answer": str(i + 1)}) for i in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    recipe = ROOT / "scripts" / "configs" / "train_rlvr_qwen2.5-vl-3b.yaml"
    arguments = ["--config", str(recipe), "--rollout", "hf", "--dataset_name", str(tmp_path / "rows.jsonl")]
    arguments += ["--model_name_or_path", "./nothing", "--output_dir", str(tmp_path / "run")]
    assert main(["train", *arguments, *QUICK]) == 2
    message = capsys.readouterr().err
    assert "100 rows" in message and "128 prompts" in message and "generation_batch_size" in message


PLAN = ["plan", "--processes", "1", "--method", "rlvr", "--bf16", "false", *SIZES]


def test_the_plan_says_that_no_update_runs(capsys):
    assert main([*PLAN, "--rows", "2"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"(?i)no update|trains nothing|train nothing", output)


def test_the_plan_says_which_rows_an_epoch_drops(capsys):
    """Two rollouts of 4 prompts an epoch."""
    assert main([*PLAN, "--rows", "10"]) == 0
    assert re.search(r"\b2 (of (the )?10 )?rows\b.*\bepoch", capsys.readouterr().out)


def test_the_plan_says_nothing_of_dropped_rows_where_there_are_none(capsys):
    assert main([*PLAN, "--rows", "8"]) == 0
    output = capsys.readouterr().out
    assert "12 updates" in output and not re.search(r"\b[0-7] (of (the )?8 )?rows\b", output)


def test_training_says_which_rows_an_epoch_drops(policy_folder, tmp_path, capsys):
    arguments = train(policy_folder, tmp_path / "run", "--dataset_limit", "6", "--num_train_epochs", "1")
    assert main([*arguments, "--save_strategy", "no"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"\b2 (of (the )?6 )?rows\b.*\bepoch", captured.out + captured.err)


def test_training_counts_options_that_the_prompts_do_not_show(policy_folder, tmp_path, capsys):
    rows = [{"prompt": f"which sum is {i}?", "options": ["red", "blue"], "answer": "A"} for i in range(24)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = train(policy_folder, tmp_path / "run", "--dataset_name", str(tmp_path / "rows.jsonl"))
    assert main([*arguments, "--save_strategy", "no", "--max_steps", "1"]) == 0
    captured = capsys.readouterr()
    assert "24 rows have options that their prompts do not show" in captured.out + captured.err


# Resuming


@pytest.fixture(scope="module")
def finished(policy_folder, tmp_path_factory):
    """A finished run of two updates with a checkpoint after the second."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert main(train(policy_folder, run, *STEPS)) == 0
    return run


STEPS = ("--dataset_limit", "16", "--max_steps", "2", "--save_strategy", "steps", "--save_steps", "2")
RECORDS = ("config.yaml", "run.json")


@pytest.fixture
def run(finished, tmp_path, capsys):
    """A copy of the finished run."""
    capsys.readouterr()
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder, names=RECORDS):
    return {name: (folder / name).read_bytes() for name in names}


def steps_of(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if "loss" in line]


def test_a_finished_run_that_is_resumed_trains_no_update(policy_folder, run, capsys):
    before = contents(run, ["model.safetensors"])
    assert main(train(policy_folder, run, *STEPS, "--resume", "auto")) in (0, 2)
    assert steps_of(run) == [1, 2]
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-2"]
    assert contents(run, ["model.safetensors"]) == before
    captured = capsys.readouterr()
    assert re.search(r"(?i)finished|already|nothing (is )?left", captured.out + captured.err)


def test_a_run_that_was_killed_after_its_last_checkpoint_is_marked_as_finished(policy_folder, run):
    record = json.loads((run / "run.json").read_text())
    assert record.pop("finished")["steps"] == 2
    (run / "run.json").write_text(json.dumps(record))
    assert main(train(policy_folder, run, *STEPS, "--resume", "auto")) == 0
    marked = json.loads((run / "run.json").read_text())
    assert marked.pop("finished")["steps"] == 2 and marked == record


def test_a_finished_run_goes_on_to_more_steps(policy_folder, run):
    assert main(train(policy_folder, run, *STEPS, "--resume", "auto", "--max_steps", "4")) == 0
    assert steps_of(run) == [1, 2, 3, 4]


def test_a_resume_with_the_settings_of_the_run_names_no_difference(policy_folder, run, capsys):
    assert main(train(policy_folder, run, *STEPS, "--max_steps", "4", "--resume", "auto")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("other than when")]
    assert [line.split(": ")[1] for line in lines] == ["max_steps"]


def test_a_finished_run_is_not_trained_again_without_resume(policy_folder, run, capsys):
    before = contents(run)
    assert main(train(policy_folder, run, *STEPS)) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert contents(run) == before and steps_of(run) == [1, 2]


def test_a_resume_that_fails_leaves_the_records_of_the_run(make_policy, processor, run, tmp_path, capsys):
    """The checkpoint is of another policy, which shows when its weights are loaded."""
    wide = save(make_policy(hidden_size=64), processor, tmp_path / "wide")
    before = contents(run)
    assert main(train(wide, run, *STEPS, "--max_steps", "4", "--resume", "auto")) == 2
    assert "does not hold this policy's weights" in capsys.readouterr().err
    assert contents(run) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--method", "entropy"], ("method", "rlvr", "entropy")),
        (["--dataset_limit", "32"], ("dataset_limit", "16", "32")),
        (["--dataset_split", "test"], ("dataset_split", "train", "test")),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_resume_with_another_method_or_data_set_is_refused(policy_folder, run, capsys, loads, changes, words):
    before = contents(run)
    assert main(train(policy_folder, run, *STEPS, "--max_steps", "4", *changes, "--resume", "auto")) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words)
    assert contents(run) == before and loads == []


@pytest.mark.parametrize("resume", ["auto", "checkpoint"])
def test_a_resume_takes_over_the_settings_of_the_run(policy_folder, run, capsys, resume):
    """Method, data, policy and sizes had to be typed again, and what was left out had its default."""
    where = ["--resume", "auto"] if resume == "auto" else ["--resume", str(run / "checkpoint-2")]
    assert main(["train", "--output_dir", str(run), *where, "--max_steps", "4"]) == 0
    printed = capsys.readouterr().out
    assert f"settings of {run}/checkpoint-2/config.yaml; the command line overrides them" in printed
    lines = [line for line in printed.splitlines() if line.startswith("other than when")]
    assert [line.split(": ")[1] for line in lines] == ["max_steps"] and steps_of(run) == [1, 2, 3, 4]
    given = set(json.loads((run / "run.json").read_text())["given_settings"])
    assert {"method", "max_steps", "num_generations"} <= given and "adam_beta1" not in given  # what a user typed


def test_the_configuration_of_a_run_starts_another(policy_folder, run, tmp_path):
    """TRL refused it: it held a batch size beside the number of batches that TRL had derived it from."""
    arguments = ["--config", str(run / "config.yaml"), "--output_dir", str(tmp_path / "again")]
    assert main(["train", *arguments]) == 0
    first, second = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (run, tmp_path / "again"))
    places = {"output_dir", "logging_dir", "run_name"}
    assert {name for name in first if first[name] != second[name]} <= places and steps_of(tmp_path / "again") == [1, 2]


def test_a_resume_keeps_what_the_run_began_with(policy_folder, run):
    """A changed setting may apply, but the setting of the first part of the run must stay on record."""
    assert yaml.safe_load((run / "config.yaml").read_text())["learning_rate"] == 1e-6
    arguments = train(policy_folder, run, *STEPS, "--max_steps", "4", "--learning_rate", "1e-4", "--resume", "auto")
    if main(arguments) == 0:
        records = "".join(path.read_text() for path in (run / "run.json", *run.glob("config*.yaml")))
        assert re.search(r"\b1(\.0)?e-06\b", records) and "0.0001" in records
    else:
        assert yaml.safe_load((run / "config.yaml").read_text())["learning_rate"] == 1e-6


# What a first look at the data says


@pytest.fixture
def write_rows(tmp_path):
    def write(prompt):
        rows = [{"prompt": prompt.format(i), "answer": str(i)} for i in range(24)]
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return str(tmp_path / "rows.jsonl")

    return write


ASKING = (
    "sum {}? Put your final answer within \\boxed{{}}.",
    "sum {}? Write the answer between <answer> and </answer>.",
    'sum {}? End with "The answer is X".',
)


def look(command, rows, policy, tmp_path, capsys, *extra):
    capsys.readouterr()
    arguments = ["--dataset_name", rows, *extra]
    arguments += ["--out", str(tmp_path / "out"), "--workers", "1"] if command == "check-data" else []
    arguments += ["--model_name_or_path", policy] if command == "preview" else []
    assert main([command, *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["check-data", "preview"])
def test_prompts_that_ask_for_no_answer_format_are_named(command, write_rows, policy_folder, tmp_path, capsys):
    """The grader finds an answer in boxes, tags and phrases only."""
    output = look(command, write_rows("sum {}?"), policy_folder, tmp_path, capsys)
    assert re.search(r"prompts? asks? for no answer format", output)


@pytest.mark.parametrize("command", ["check-data", "preview"])
def test_prompts_that_ask_for_an_answer_format_are_not_named(command, write_rows, policy_folder, tmp_path, capsys):
    for prompt in ASKING:
        assert "for no answer format" not in look(command, write_rows(prompt), policy_folder, tmp_path, capsys)
    system = ["--system_prompt", "Put your final answer within \\boxed{}."]
    output = look(command, write_rows("sum {}?"), policy_folder, tmp_path, capsys, *system)
    assert "for no answer format" not in output


# Alerts of runs whose answers nobody can read


HEALTHY = {"outcome/mean": 0.5, "frac_reward_zero_std": 0.3, "grading/no_answer": 0.1, "rlpr/valid": 0.9}


def messages_of(changes, steps):
    from rlfr_vlm.trainer.records.alerts import AlertMonitor

    monitor = AlertMonitor()
    return [message for _ in range(steps) for _, message in monitor.observe(HEALTHY | changes)]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"grading/no_answer": 1.0, "outcome/mean": 0.0}, r"no (readable )?answer"),
        ({"grading/no_answer": 0.95, "outcome/mean": 0.05}, r"no (readable )?answer"),
        ({"rlpr/valid": 0.0}, "answer"),
        ({"rlpr/valid": 0.02}, "answer"),
    ],
)
def test_answers_that_nobody_can_read_raise_an_alert_in_the_first_steps(changes, word):
    messages = messages_of(changes, 10)
    assert len(messages) == 1 and re.search(word, messages[0])


def test_answers_that_can_be_read_raise_no_alert():
    assert messages_of({}, 30) == []
