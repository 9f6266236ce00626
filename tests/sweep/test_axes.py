"""`--set` and `--seeds`: values in YAML, commas in brackets, and mistakes."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.sweep.axes import arguments_of, axes_of, seeds_of


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("learning_rate=1e-5,2e-5", ("1e-5", "2e-5")),
        ("flow_timesteps=[0.2, 0.8],[0.8]", ("[0.2, 0.8]", "[0.8]")),
        ("lr_scheduler_kwargs={a: 1, b: [2, 3]},{}", ("{a: 1, b: [2, 3]}", "{}")),
        ("system_prompt='Yes, think.',Don't, please", ("'Yes, think.'", "Don't", "please")),
        ("media_root=a=b", ("a=b",)),
    ],
)
def test_commas_in_brackets_and_quotes_do_not_split(text, values):
    assert axes_of([text])[0].values == values


@pytest.mark.parametrize(
    ("key", "text", "arguments"),
    [
        ("learning_rate", "1e-5", ["--learning_rate", "1e-5"]),
        ("flow_two_sided", "true", ["--flow_two_sided", "true"]),
        ("eval_strategy", "no", ["--eval_strategy", "no"]),  # YAML reads it as false
        ("system_prompt", "'Yes, think.'", ["--system_prompt", "Yes, think."]),
        ("flow_score_layers", "[2, 3]", ["--flow_score_layers", "2", "3"]),
        ("curriculum_band", "null", ["--curriculum_band", "null"]),
        ("curriculum_band", "~", ["--curriculum_band", "null"]),
        ("lr_scheduler_kwargs", "{min_lr_rate: 0.1}", ["--lr_scheduler_kwargs", '{"min_lr_rate": 0.1}']),
    ],
)
def test_a_value_becomes_arguments(key, text, arguments):
    assert arguments_of(key, text) == arguments


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["learning_rate"], "write it as key=value,value"),
        (["=1"], "write it as key=value,value"),
        (["beta=1,,2"], "--set beta=1,,2 has an empty value"),
        (["beta=1,2", "beta=3"], "--set has beta twice"),
        (["beta=1,2,1"], "--set has beta=1 twice; the runs would be the same"),
        (["flow_timesteps=[0.2,0.8"], "a bracket or quote is not closed"),
        (["curriculum_band=[],null"], "an empty list cannot be set there"),
        (["beta={a: b: c}"], "is not valid YAML"),
    ],
)
def test_mistakes_in_set(texts, message):
    with pytest.raises(UserError) as error:
        axes_of(texts)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1.5", "1,1", "1,,2", ","])
def test_mistakes_in_seeds(text):
    with pytest.raises(UserError, match="--seeds is"):
        seeds_of(text)
