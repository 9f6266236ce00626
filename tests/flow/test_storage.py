"""Saving, loading and refusing fields."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import (
    FlowSpec,
    build_field,
    check_context,
    check_fits_policy,
    load_field,
    resolve_layers,
    save_field,
)


def small_spec(**changes) -> FlowSpec:
    values = {"hidden_size": 8, "depth": 1, "num_layers": 4, "layer_percentiles": (0.25, 0.5), "layer_indices": (1, 2)}
    return FlowSpec(**(values | changes))


def small_field(spec: FlowSpec) -> nn.Module:
    field = build_field(spec)
    for parameter in field.parameters():
        nn.init.normal_(parameter)
    return field


def text_config(**changes) -> SimpleNamespace:
    return SimpleNamespace(**({"hidden_size": 8, "num_hidden_layers": 4, "rms_norm_eps": 1e-6} | changes))


def test_round_trip_keeps_weights_and_spec(tmp_path):
    spec = small_spec(
        policy_name="p", data="d", steps=7, final_loss=0.5, latent_mean=(0.0, 1.0), latent_std=(1.0, 2.0)
    )
    field = small_field(spec)
    save_field(tmp_path / "flow", field, spec)
    loaded, loaded_spec = load_field(tmp_path / "flow")
    assert loaded_spec == spec
    assert all(
        torch.equal(a, b) for a, b in zip(field.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert sorted(p.name for p in (tmp_path / "flow").iterdir()) == ["flow.json", "flow.safetensors"]


def test_output_folder_that_holds_a_field_will_do(tmp_path):
    spec = small_spec(steps=3)
    save_field(tmp_path / "run" / "flow", small_field(spec), spec)
    assert load_field(tmp_path / "run")[1].steps == 3


def test_saving_again_replaces_the_folder_and_leaves_nothing_behind(tmp_path):
    spec = small_spec()
    save_field(tmp_path / "flow", small_field(spec), spec)
    save_field(tmp_path / "flow", small_field(spec), small_spec(steps=2))
    assert load_field(tmp_path / "flow")[1].steps == 2
    assert [p.name for p in tmp_path.iterdir()] == ["flow"]


def test_failed_save_keeps_the_old_field(tmp_path, monkeypatch):
    spec = small_spec(steps=1)
    save_field(tmp_path / "flow", small_field(spec), spec)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rlfr_vlm.flow.storage.write_json", full)
    with pytest.raises(OSError, match="No space"):
        save_field(tmp_path / "flow", small_field(spec), small_spec(steps=2))
    assert load_field(tmp_path / "flow")[1].steps == 1
    assert [p.name for p in tmp_path.iterdir()] == ["flow"]


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_released_format_loads_with_and_without_prefix(tmp_path, prefix):
    spec = small_spec()
    field = small_field(spec)
    weights = {prefix + name: tensor for name, tensor in field.state_dict().items()}
    weights[prefix + "time_embed.freqs"] = torch.zeros(1, 128)  # the release stores this constant
    torch.save(weights, tmp_path / "flow_model.bin")
    loaded, _ = load_field(tmp_path / "flow_model.bin", spec)
    assert torch.equal(loaded.input_proj.weight, field.input_proj.weight)


def test_text_field_gains_image_context_unchanged(tmp_path):
    spec = small_spec()
    field = small_field(spec)
    torch.save(field.state_dict(), tmp_path / "text.bin")
    loaded, _ = load_field(tmp_path / "text.bin", small_spec(image_context=True))
    assert loaded.image_embed.weight.abs().max() == 0
    assert torch.equal(loaded.cond_embed.weight, field.cond_embed.weight)


def test_pickled_code_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    torch.save({"model.input_proj.weight": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(UserError, match="Cannot read"):
        load_field(tmp_path / "evil.bin", small_spec())
    assert not (tmp_path / "executed").exists()


def test_what_cannot_be_loaded_is_refused_with_a_reason(tmp_path):
    with pytest.raises(UserError, match=r"No flow field at .*fit-flow"):
        load_field(tmp_path / "nothing")
    spec = small_spec()
    save_field(tmp_path / "flow", small_field(spec), spec)
    with pytest.raises(UserError, match="holds weights only"):
        load_field(tmp_path / "flow" / "flow.safetensors")
    with pytest.raises(UserError, match=r"width 16 and depth 1: .*by the spec"):
        load_field(tmp_path / "flow" / "flow.safetensors", small_spec(hidden_size=16))
    with pytest.raises(UserError, match=r"missing res_blocks\.1"):
        load_field(tmp_path / "flow" / "flow.safetensors", small_spec(depth=2))
    (tmp_path / "flow" / "flow.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="Cannot read the flow weights"):
        load_field(tmp_path / "flow")
    (tmp_path / "flow" / "flow.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        load_field(tmp_path / "flow")
    (tmp_path / "flow" / "flow.json").write_text(json.dumps(spec.to_dict() | {"surprise": 1}))
    with pytest.raises(UserError, match="unknown entries: surprise"):
        load_field(tmp_path / "flow")


def test_field_of_another_policy_is_refused_naming_both_sides():
    check_fits_policy(small_spec(policy_config_hash=""), text_config(), "p")
    with pytest.raises(UserError, match="hidden width: field 8, policy 16"):
        check_fits_policy(small_spec(policy_name="a"), text_config(hidden_size=16), "b")
    with pytest.raises(UserError, match="number of layers: field 4, policy 8"):
        check_fits_policy(small_spec(), text_config(num_hidden_layers=8), "b")


def test_image_context_needs_a_policy_with_images():
    spec = small_spec(image_context=True)
    check_fits_policy(spec, text_config(), "p", has_vision=True)
    with pytest.raises(UserError, match="p is a text-only policy"):
        check_fits_policy(spec, text_config(), "p", has_vision=False)


def test_released_file_loads_from_a_folder_with_a_spec(tmp_path):
    spec = small_spec()
    field = small_field(spec)
    torch.save(field.state_dict(), tmp_path / "flow_model.bin")
    (tmp_path / "flow.json").write_text(json.dumps(spec.to_dict()))
    assert torch.equal(load_field(tmp_path)[0].input_proj.weight, field.input_proj.weight)


def test_other_architecture_of_equal_size_is_reported(caplog):
    spec = FlowSpec.for_policy(text_config(intermediate_size=3), "a", 1, (0.25,))
    check_fits_policy(spec, text_config(intermediate_size=5), "b")
    assert "architecture differs" in caplog.text


def test_another_policy_of_equal_architecture_is_reported(caplog):
    """It was used without a word; the same policy at another place is the same."""
    spec = FlowSpec.for_policy(text_config(), "org/a", 1, (0.25,))
    check_fits_policy(spec, text_config(), "models/a")
    assert caplog.text == ""
    check_fits_policy(spec, text_config(), "org/b")
    assert "was fitted on org/a, and the policy is org/b, of the same sizes" in caplog.text


def test_another_context_mode_is_refused_naming_both_sides():
    check_context(small_spec(), "token_pre", 1)
    with pytest.raises(UserError, match=r"token_pre \(shift 1\), the configuration asks for token_post \(shift 1\)"):
        check_context(small_spec(), "token_post", 1)
    with pytest.raises(UserError, match="shift 2"):
        check_context(small_spec(), "token_pre", 2)


@pytest.mark.parametrize(("num_layers", "expected"), [(28, (7, 14, 21)), (36, (9, 18, 27)), (4, (1, 2, 3))])
def test_percentiles_resolve_to_the_papers_blocks(num_layers, expected):
    assert resolve_layers((0.25, 0.5, 0.75), num_layers) == expected


def test_last_block_and_bad_percentiles():
    assert resolve_layers((1.0,), 28) == (28,)
    for bad in (0.0, 1.01, -0.5):
        with pytest.raises(UserError, match="outside"):
            resolve_layers((bad,), 28)
    with pytest.raises(UserError, match="each block may stand once"):
        resolve_layers((0.25, 0.26), 4)
    with pytest.raises(UserError, match="Unknown context mode 'before'"):
        small_spec(context_mode="before")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_mean": [0.0, 0.0], "latent_std": [1.0, 0.0]}, r"latent_std \[1.0, 0.0\]"),
        ({"latent_mean": [0.0, 0.0], "latent_std": [1.0, -1.0]}, r"latent_std \[1.0, -1.0\]"),
        ({"latent_mean": [0.0], "latent_std": [1.0]}, "a value for each of its 2 layers"),
        ({"latent_mean": [0.0, 0.0]}, "it needs both or neither"),
        ({"latent_mean": [0.0, float("nan")], "latent_std": [1.0, 1.0]}, "latent_mean .* a list of finite numbers"),
        ({"latent_mean": "ab", "latent_std": [1.0, 1.0]}, "latent_mean 'ab'"),
        ({"eps": float("nan")}, "eps nan; it must lie between 0 and 1"),
        ({"eps": 0.0}, "eps 0.0"),
        ({"eps": "small"}, "eps 'small'"),
        ({"layer_indices": [1]}, r"layer_indices \[1\]"),
        ({"layer_indices": [1, 5]}, r"1 to num_layers \(4\)"),
        ({"layer_indices": [0, 2]}, r"layer_indices \[0, 2\]"),
        ({"layer_indices": 1}, "layer_indices 1; it must be a list"),
        ({"hidden_size": 0}, "hidden_size 0; it must be a whole number from 1 on"),
        ({"hidden_size": 8.0}, "hidden_size 8.0"),
        ({"depth": -1}, "depth -1"),
        ({"num_layers": True}, "num_layers True"),
    ],
)
def test_a_spec_that_no_field_can_have_is_refused_when_it_is_read(tmp_path, changes, message):
    spec = small_spec()
    save_field(tmp_path / "flow", small_field(spec), spec)
    path = tmp_path / "flow" / "flow.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        load_field(tmp_path / "flow")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30, 2e4])
def test_weights_that_are_not_finite_or_absurd_are_refused(tmp_path, value):
    """They were loaded, and every flow reward became 0."""
    spec = small_spec()
    field = small_field(spec)
    with torch.no_grad():
        field.cond_embed.weight[3, 2] = value
    save_field(tmp_path / "flow", field, spec)
    with pytest.raises(UserError, match=r"cond_embed\.weight has values that are not finite, or beyond 10000"):
        load_field(tmp_path / "flow")
    with torch.no_grad():
        field.cond_embed.weight[3, 2] = 100.0
    save_field(tmp_path / "flow", field, spec)
    load_field(tmp_path / "flow")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats(width=16) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
RIGHT = json.loads(json.dumps(small_spec().to_dict()))
SPECS = st.one_of(
    st.dictionaries(st.sampled_from([*RIGHT, "other"]), VALUES, max_size=2).map(lambda changes: RIGHT | changes),
    st.sampled_from(sorted(RIGHT)).map(lambda name: {key: value for key, value in RIGHT.items() if key != name}),
    VALUES,
)


@settings(derandomize=True, max_examples=150)
@given(text=SPECS.map(json.dumps).map(str.encode) | st.binary(max_size=12))
def test_fuzz_specs(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        save_field(folder, small_field(small_spec()), small_spec())
    (folder / "flow.json").write_bytes(text)
    try:
        _, spec = load_field(folder)
    except UserError:
        return
    assert (spec.hidden_size, spec.depth) == (8, 1) and spec.to_dict() == FlowSpec.from_dict(spec.to_dict()).to_dict()
