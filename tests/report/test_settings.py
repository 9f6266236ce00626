"""Settings on a report page: what a user set differently, and derived ones that decide training."""

import json

import pytest
import yaml

from rlfr_vlm.report.read_run import read_run
from rlfr_vlm.report.run_report import PageOptions, write_training_report
from rlfr_vlm.report.settings import differing_settings, settings_of
from tests.report.fake_run import write_run

# What the trainer derives: of the method, of use_cpu, of the rollout's sizes.
DERIVED = {"flow_coef": 0.0, "dataloader_pin_memory": False, "generation_batch_size": 64, "metric_for_best_model": "x"}
DEFAULTS = {
    "flow_coef": 0.01, "dataloader_pin_memory": True, "generation_batch_size": 8, "metric_for_best_model": None,
    "learning_rate": 1e-6, "steps_per_generation": 1, "save_steps": 500, "run_name": None, "seed": 42,
}  # fmt: skip


@pytest.fixture
def make_run(tmp_path):
    def make(name, given, **config):
        folder = write_run(tmp_path / name, [], [0.5], **config)
        written = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump(written | {"run_name": name}))
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | ({} if given is None else {"given_settings": given})))
        return read_run(folder)

    return make


def test_what_nobody_set_is_not_listed(make_run):
    run = make_run("a", ["learning_rate"], **DERIVED, steps_per_generation=4, save_steps=7)
    # save_steps is not the user's; steps_per_generation is derived, but decides training
    assert settings_of(run, DEFAULTS) == [("learning_rate", "3e-06", "1e-06"), ("steps_per_generation", "4", "1")]


def test_a_derived_setting_that_a_user_set_is_listed(make_run):
    run = make_run("a", ["generation_batch_size", "flow_coef"], **DERIVED | {"flow_coef": 0.5})
    assert [name for name, _, _ in settings_of(run, DEFAULTS)] == ["flow_coef", "generation_batch_size"]


def test_runs_without_a_record_of_their_users_settings(make_run):
    """Derived settings are known by name; a weight is derived only where it is 0."""
    run = make_run("a", None, **DERIVED, save_steps=7)
    assert [name for name, _, _ in settings_of(run, DEFAULTS)] == ["learning_rate", "save_steps"]
    run = make_run("b", None, **DERIVED | {"flow_coef": 0.5})
    assert [name for name, _, _ in settings_of(run, DEFAULTS)] == ["flow_coef", "learning_rate"]


def test_runs_are_compared_in_what_their_users_set(make_run, tmp_path):
    runs = [
        make_run(
            "a", ["method", "learning_rate", "save_steps", "seed"], save_steps=7, seed=1, **DERIVED, method="rlvr"
        ),
        make_run(
            "b", ["method", "learning_rate", "save_steps"], save_steps=7, seed=2, flow_coef=0.01, learning_rate=1e-6
        ),
    ]
    expected = [("learning_rate", ["3e-06", "1e-06"]), ("method", ["rlvr", "rlfr"])]
    assert differing_settings(runs, DEFAULTS) == expected
    write_training_report(runs, tmp_path / "page", PageOptions(DEFAULTS, 10))
    text = (tmp_path / "page" / "report.md").read_text()
    assert "| setting that differs | a | b |\n|---|---|---|\n| learning_rate | 3e-06 | 1e-06 |\n| method |" in text
    page = (tmp_path / "page" / "report.html").read_text()
    assert "2 settings in which the runs differ" in page
    assert '<th scope="row">learning_rate</th><td><code>3e-06</code></td><td><code>1e-06</code></td>' in page


def test_seeds_of_one_experiment_differ_in_nothing(make_run, tmp_path):
    runs = [make_run(name, ["seed"], seed=seed) for name, seed in (("a", 1), ("b", 2))]
    write_training_report(runs, tmp_path / "page", PageOptions(DEFAULTS, 10))
    assert "in which the runs differ" not in (tmp_path / "page" / "report.html").read_text()
