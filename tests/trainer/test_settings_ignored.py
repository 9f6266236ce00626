"""Settings that have no effect or cannot work are refused by name and value before the policy is loaded."""

import importlib.util

import pytest

from rlfr_vlm.cli import main

# The policy does not exist: a command that gets as far as its policy says so.
LATE = "No model at ./nothing"
DEFAULTS = {
    "method": "rlvr",
    "model_name_or_path": "./nothing",
    "dataset_name": "digits",
    "dataset_limit": "16",
    "output_dir": "run",
    "num_generations": "4",
    "per_device_train_batch_size": "8",
    "use_cpu": "true",
    "bf16": "false",
    "report_to": "none",
}


@pytest.fixture
def message(tmp_path, monkeypatch, capsys):
    """Starts `rlfr train` with settings and YAML lines; returns the message with which it ends."""
    monkeypatch.chdir(tmp_path)

    def train(settings, yaml=None):
        values = DEFAULTS | settings
        arguments = [part for name, value in values.items() if value is not None for part in (f"--{name}", value)]
        if yaml is not None:
            (tmp_path / "train.yaml").write_text(yaml)
            arguments += ["--config", "train.yaml"]
        assert main(["train", *arguments]) == 2
        return capsys.readouterr().err

    return train


def test_settings_without_a_mistake_get_as_far_as_the_policy(message):
    assert LATE in message({})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flow_coef": "0.5"}, ("flow_coef", "0.5", "rlvr")),
        ({"entropy_alpha": "0.7"}, ("entropy_alpha", "0.7", "rlvr")),
        ({"flow_path": "nope"}, ("flow_path", "nope", "rlvr")),
    ],
)
def test_a_setting_that_the_method_does_not_read_is_refused(message, settings, words):
    text = message(settings)
    assert LATE not in text and all(word in text for word in words)


@pytest.mark.parametrize(
    "settings",
    [
        {"per_device_train_batch_size": "-8"},
        {"per_device_train_batch_size": "0"},
        {"gradient_accumulation_steps": "0"},
        {"max_completion_length": "-5"},
        {"max_completion_length": "0"},
        {"temperature": "0"},
        {"temperature": "-1"},
        {"temperature": "nan"},
        {"learning_rate": "nan"},
        {"learning_rate": "-1"},
        {"learning_rate": "inf"},
        {"loss_type": "nonsense"},
        {"scale_rewards": "nonsense"},
        {"report_to": "nonsense"},
        {"bad_row_limit": "-1"},
        {"bad_row_limit": "nan"},
        {"max_prompt_tokens": "-1"},
        {"image_max_pixels": "-5"},
    ],
    ids=lambda settings: " ".join(next(iter(settings.items()))),
)
def test_a_value_that_cannot_work_is_refused_by_name(message, settings):
    (name, value) = next(iter(settings.items()))
    text = message(settings)
    assert LATE not in text and name in text and value in text


def test_an_unknown_optimiser_is_refused_by_name(message):
    text = message({"optim": "nonsense"})
    assert LATE not in text and "optim" in text and "nonsense" in text


@pytest.mark.parametrize(
    ("settings", "package"), [({"report_to": "wandb"}, "wandb"), ({"use_liger_kernel": "true"}, "liger_kernel")]
)
def test_a_setting_whose_package_is_missing_is_refused(message, settings, package):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is there")
    text = message(settings)
    assert LATE not in text and next(iter(settings)) in text and package.replace("_", "-") in text.replace("_", "-")
    assert "install" in text


def test_a_smallest_image_above_the_largest_is_refused(message):
    text = message({"image_min_pixels": "9999999", "image_max_pixels": "784"})
    assert LATE not in text
    assert all(word in text for word in ("image_min_pixels", "9999999", "image_max_pixels", "784"))


def test_a_run_without_output_dir_is_refused(message):
    text = message({"output_dir": None})
    assert LATE not in text and "output_dir" in text


def test_a_key_that_the_yaml_file_has_twice_is_refused(message):
    text = message({}, "learning_rate: 1.0e-6\nbeta: 0.0\nlearning_rate: 1.0e-3\n")
    assert LATE not in text and "learning_rate" in text and "twice" in text


@pytest.mark.parametrize("value", ["no", "off"])
@pytest.mark.parametrize("name", ["eval_strategy", "save_strategy", "logging_strategy"])
def test_a_strategy_that_yaml_reads_as_false_works_or_is_refused_by_name(message, name, value):
    """YAML reads no and off as false; both work in quotes."""
    text = message({}, f"{name}: {value}\n")
    assert LATE in text or (name in text and "quotes" in text)


@pytest.mark.parametrize("name", ["learning_rate", "max_steps", "per_device_train_batch_size", "flow_top_k"])
def test_a_number_that_is_null_is_refused_by_name(message, name):
    settings = {"per_device_train_batch_size": None} if name == "per_device_train_batch_size" else {}
    text = message(settings, f"{name}: null\n")
    assert LATE not in text and f"{name} in train.yaml is None" in text


def test_the_known_losses_and_scales_are_those_of_trl():
    """Read in TRL 1.16: its trainer compares these settings with literals, and has no list of them."""
    import inspect
    import re

    from trl import GRPOTrainer

    from rlfr_vlm.trainer.rlfr_config import LOSS_TYPES, SCALES

    source = inspect.getsource(GRPOTrainer)

    def literals(name):
        compared = re.findall(rf"self\.{name} (?:==|!=|in) (\[[^\]]*\]|\"[^\"]*\")", source)
        return set(re.findall(r"\"(\w+)\"", " ".join(compared)))

    assert literals("loss_type") == set(LOSS_TYPES) and literals("scale_rewards") == set(SCALES)
