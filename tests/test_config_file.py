"""YAML with command-line overrides: precedence, unknown keys, types, secrets."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_vlm.config_file import differences, parse_config, resolved, write_resolved
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions, RunOptions, ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig

ROOT = Path(__file__).resolve().parents[1]
BASE = ["--use_cpu", "true", "--bf16", "false", "--report_to", "none"]


def parse(tmp_path: Path, text: str = "", *arguments: str) -> tuple[ScriptArguments, RLFRConfig]:
    path = tmp_path / "c.yaml"
    path.write_text(text or "{}")
    return parse_config(
        (ScriptArguments, RLFRConfig), ["--config", str(path), "--output_dir", str(tmp_path), *BASE, *arguments]
    )


def test_command_line_beats_file_beats_default(tmp_path):
    options, args = parse(
        tmp_path, "flow_coef: 0.02\nlearning_rate: 1e-4\ndataset_name: digits", "--flow_coef", "0.03"
    )
    assert (args.flow_coef, args.learning_rate, args.flow_threshold) == (0.03, 1e-4, 0.6)
    assert options.dataset_name == "digits"


def test_null_unsets_a_setting_and_the_last_value_counts(tmp_path):
    text = "curriculum_band: [0.2, 0.8]\nmax_prompt_tokens: 64"
    options, args = parse(tmp_path, text, "--curriculum_band", "null", "--max-prompt-tokens=null")
    assert args.curriculum_band is None and options.max_prompt_tokens is None
    _, args = parse(tmp_path, text, "--curriculum_band", "null", "--curriculum_band", "0.1", "0.9")
    assert args.curriculum_band == [0.1, 0.9]
    _, args = parse(tmp_path, text, "--curriculum_band", "0.1", "0.9", "--beta", "0.5", "--curriculum_band", "null")
    assert args.curriculum_band is None and args.beta == 0.5
    with pytest.raises(UserError, match="invalid float value: 'null'"):
        parse(tmp_path, text, "--beta", "null")


def test_lists_and_booleans(tmp_path):
    options, args = parse(tmp_path, "flow_timesteps: [0.5, 0.8]\nflow_two_sided: false", "--rewards", "accuracy")
    assert (args.flow_timesteps, args.flow_two_sided, options.rewards) == ([0.5, 0.8], False, ["accuracy"])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("flow_cof: 1", [], r"Unknown key 'flow_cof' in .*c\.yaml\. Did you mean 'flow_coef'\?"),
        ("", ["--flow-cof", "1"], r"Unknown option --flow-cof\. Did you mean 'flow_coef'\?"),
        ("learning_rate: fast", [], "invalid float value: 'fast'"),
        ("max_steps: [1]", [], None),
        ("rewards: accuracy", [], r"rewards in .* must be a list: rewards: \[accuracy\]"),
        ("flow_timesteps: 0.8", [], r"flow_timesteps in .* must be a list: flow_timesteps: \[0\.8\]"),
        ("flow_top_k: 1.5", [], r"flow_top_k in .* is 1\.5, but must be int"),
        ("flow_update: 3", [], "flow_update in .* is 3, but must be bool"),
        ("flow_coef: null", [], "flow_coef in .* is None, but must be float"),
        ("- a", [], "must hold `key: value` lines"),
        ("a: [", [], "is not valid YAML"),
        ("a: " + "[" * 500, [], "is not valid YAML"),
        ("a: 2020-13-45", [], "is not valid YAML"),
        ("num_generations: 1", [], "num_generations is 1"),
        ("num_generations: 3\nper_device_train_batch_size: 4", [], "must be divisible by num_generations"),
    ],
)
def test_mistakes_are_explained(tmp_path, text, arguments, message):
    with pytest.raises(UserError, match=message):
        parse(tmp_path, text, *arguments)


def test_missing_file_and_missing_value():
    with pytest.raises(UserError, match=r"No configuration file at nothing\.yaml"):
        parse_config((RunOptions,), ["--config", "nothing.yaml"])
    with pytest.raises(UserError, match="expected one argument"):
        parse_config((RunOptions,), ["--config"])


def test_resolved_configuration_is_complete_parses_again_and_hides_secrets(tmp_path):
    options, args = parse(tmp_path, "flow_coef: 0.02", "--hub_token", "hf_verysecret")
    write_resolved(tmp_path / "out", options, args)
    text = (tmp_path / "out" / "config.yaml").read_text()
    values = yaml.safe_load(text)
    assert values["flow_coef"] == 0.02
    assert values["num_generations"] == 8
    assert "hf_verysecret" not in text
    assert set(vars(options)) <= set(values)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "scripts" / "configs").glob("train*.yaml")), ids=lambda path: path.stem
)
def test_a_written_configuration_parses_to_the_same(tmp_path, path):
    """In the process that wrote it, too: the parser changes the types of the dataclasses' fields."""
    classes, here = (ScriptArguments, RLFRConfig), ["--use_cpu", "true", "--bf16", "false", "--hub_token", "hf_secret"]
    configs = parse_config(classes, ["--config", str(path), *here])
    write_resolved(tmp_path, *configs)
    again = parse_config(classes, ["--config", str(tmp_path / "config.yaml")])
    assert again[1].hub_token is None  # a masked secret is none
    again[1].hub_token = "hf_secret"
    assert resolved(*again) == resolved(*configs)


def test_settings_that_differ_from_what_was_written_are_named(tmp_path):
    from rlfr_vlm.config_file import differences, write_resolved
    from rlfr_vlm.options import RunOptions

    assert differences(tmp_path, RunOptions()) == []
    write_resolved(tmp_path, RunOptions(dataset_name="a", dtype="float32"))
    assert differences(tmp_path, RunOptions(dataset_name="b", dtype="float32")) == ["dataset_name: a -> b"]


def test_files_with_settings_of_earlier_versions_still_open(tmp_path, caplog):
    _, args = parse(tmp_path, "spread_record_from: 6\nspread_filter_from: 20\nimage_max_ratio: 200.0\nflow_coef: 0.02")
    assert args.flow_coef == 0.02
    assert [record.getMessage() for record in caplog.records if record.name == "rlfr_vlm.config_file"] == [
        f"spread_filter_from: 20 in {tmp_path / 'c.yaml'} is ignored; it is always 11 now."
    ]


def test_former_settings_have_the_values_of_their_constants():
    from rlfr_vlm.data.images import MAX_RATIO, MIN_SIDE
    from rlfr_vlm.options import FORMER_SETTINGS
    from rlfr_vlm.trainer.groups import FILTER_FROM, FLAT_SPREAD, RECORD_FROM

    assert FORMER_SETTINGS == {
        "image_min_side": MIN_SIDE,
        "image_max_ratio": MAX_RATIO,
        "group_min_spread": FLAT_SPREAD,
        "spread_record_from": RECORD_FROM,
        "spread_filter_from": FILTER_FROM,
    }


@pytest.mark.parametrize("text", ["a: [", "- a", "a: \xff"])
def test_a_damaged_record_of_settings_is_named(tmp_path, text):
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.yaml"):
        differences(tmp_path, DataOptions())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(
    ["dataset_name", "dataset_limit", "dataset_columns", "bad_row_limit", "max_prompt_tokens", "flow_coef", "other"]
)
KEYS = NAMES | st.integers() | st.none() | st.booleans() | st.text(max_size=5)
LINES = st.tuples(
    NAMES | st.text(max_size=5),
    st.sampled_from([": ", ":", " ", ": [", ": {", ": &a ", ": *a", ": !!python/object:os.system ", ": |\n  "]),
    st.text(max_size=8) | st.sampled_from(["1", "x", "1e999", "2020-13-45", "0x", "~", "]", "? a", "<<: *a", "'"]),
).map("".join)
FILES = st.dictionaries(KEYS, VALUES, max_size=4).map(yaml.dump) | st.lists(LINES, max_size=4).map("\n".join)


@settings(derandomize=True, max_examples=250)
@given(text=FILES)
def test_fuzz_files(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        (options,) = parse_config((DataOptions,), ["--config", str(path)])
    except UserError:
        return
    assert isinstance(options.dataset_columns, list) and 0 <= options.bad_row_limit <= 1
