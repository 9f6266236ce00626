"""The settings of all runs are checked before the first one starts."""

import json

import pytest

from rlfr_vlm.commands.plan import configuration
from rlfr_vlm.errors import UserError
from rlfr_vlm.sweep.check import check_sweep, checked_in_own_process
from tests.sweep.helpers import sweep_of

SMALL = ["--model_name_or_path", "org/policy", "--dataset_name", "digits", "--dataset_limit", "16"]
SMALL += ["--num_generations", "4", "--per_device_train_batch_size", "8", "--use_cpu", "true", "--bf16", "false"]
OWN = ["--seeds", "--parallel", "--out"]


def refusal(tmp_path, options=(), axes=(), files=True, processes=1, methods=("rlvr", "entropy")):
    with pytest.raises(UserError) as error:
        check_sweep(sweep_of(tmp_path, methods, axes=axes, options=[*SMALL, *options]), OWN, processes, files=files)
    return str(error.value)


def test_a_sweep_without_mistakes(tmp_path):
    axes = ["learning_rate=1e-5,2e-5", "lr_scheduler_kwargs={a: 1},{a: 2}", "pack_by_length=true,false"]
    sweep = sweep_of(tmp_path, axes=axes, options=SMALL)
    assert check_sweep(sweep, OWN, 1, files=True) >= 0


def test_null_is_a_value_where_the_setting_may_be_unset(tmp_path):
    """The configuration file sets a band; the first run has none. Two spellings of null are the same run."""
    config = tmp_path / "c.yaml"
    config.write_text("max_completion_length: 24\n")
    axes = ["curriculum_band=null,[0.2, 0.8]", "max_completion_length=~,24"]
    sweep = sweep_of(tmp_path, ["rlvr"], [1], axes, config, SMALL)
    assert check_sweep(sweep, OWN, 1, files=False) >= 0
    settings = [configuration(1, run.arguments)[1] for run in sweep.runs]
    assert [(args.curriculum_band, args.max_completion_length) for args in settings] == [
        (None, None), (None, 24), ([0.2, 0.8], None), ([0.2, 0.8], 24),
    ]  # fmt: skip
    assert "have the same settings" in refusal(tmp_path, axes=["curriculum_band=null,~"])
    assert refusal(tmp_path, axes=["beta=0.1,null"]) == (
        "--set beta has null, but beta is never unset. Give the value that means off."
    )


def test_unknown_keys_and_options_have_the_nearest_name(tmp_path):
    message = refusal(tmp_path, axes=["learnin_rate=1e-5"])
    assert message == "Unknown key 'learnin_rate' in --set. Did you mean 'learning_rate'?"
    message = refusal(tmp_path, ["--paralel", "2"])
    assert message.startswith("Unknown option --paralel. Did you mean 'parallel'?")
    assert refusal(tmp_path, ["--no_wach"]).startswith("Unknown option --no_wach.")


@pytest.mark.parametrize(
    ("settings", "start", "message"),
    [
        ({"axes": ["learning_rate=1e-5,fast"]}, "rlvr-learning_rate=fast/seed-1: ", "invalid float value: 'fast'"),
        ({"axes": ["entropy_kappa=1,-1"]}, "entropy-entropy_kappa=-1/seed-1: ", "kappa above 0"),
        ({"options": ["--rewards", "speed"]}, "rlvr/seed-1: ", "Unknown reward 'speed'"),
        ({"options": ["--rewards", "accuracy"], "methods": ["rlpr"]}, "rlpr/seed-1: ", "with rlpr the outcome is"),
        ({"options": ["--model_name_or_path", "./none"]}, "rlvr/seed-1: ", "No model at ./none"),
        ({"options": ["--dataset_name", "./none.jsonl"]}, "rlvr/seed-1: ", "No dataset at ./none.jsonl"),
        ({"options": ["--dataset_limit", "1"]}, "rlvr/seed-1: ", "The data set has 1 rows"),
        ({"methods": ["rlvr", "rlfr"]}, "rlfr/seed-1: ", "there is no flow field: flow_path is not set"),
        ({"options": ["--num_generations", "3"]}, "rlvr/seed-1: ", "divisible"),
    ],
)
def test_a_mistake_names_the_run(tmp_path, settings, start, message):
    refused = refusal(tmp_path, **settings)
    assert refused.startswith(start) and message in refused


def test_two_values_that_are_one_are_refused(tmp_path):
    message = refusal(tmp_path, axes=["learning_rate=1e-5,0.00001"])
    assert message.startswith("rlvr-learning_rate=1e-5/seed-1 and rlvr-learning_rate=0.00001/seed-1 have the same")


def test_files_of_another_machine_are_not_looked_for(tmp_path):
    sweep = sweep_of(tmp_path, options=[*SMALL, "--dataset_name", "./none.jsonl", "--model_name_or_path", "./none"])
    check_sweep(sweep, OWN, 1, files=False)


def test_rollouts_are_counted_with_the_processes_of_a_launcher(tmp_path):
    """Two responses a process make no group of four on one process, and one on two."""
    options = ["--per_device_train_batch_size", "2"]
    assert "divisible" in refusal(tmp_path, options)
    check_sweep(sweep_of(tmp_path, options=[*SMALL, *options]), OWN, 2, files=True)


@pytest.mark.slow
def test_the_check_runs_in_a_process_of_its_own(tmp_path, monkeypatch):
    """The mistake arrives from there as it was."""
    import rlfr_vlm.sweep.check as check

    monkeypatch.setattr(check, "_refuse_unknown_settings", lambda *_: pytest.fail("it ran in this process"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "1+1?"}) + "\n")
    sweep = sweep_of(tmp_path, ["rlvr"], [1], options=["--bta", "1"])
    with pytest.raises(UserError, match=r"^Unknown option --bta\. Did you mean 'beta'\?"):
        checked_in_own_process(sweep, OWN, 1, files=True)
