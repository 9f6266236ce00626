"""Saving, loading and refusing fields."""

import json
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


RIGHT = json.loads(json.dumps(small_spec().to_dict()))
REQUIRED = ["hidden_size", "depth", "num_layers", "layer_percentiles", "layer_indices"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
CHANGES = st.dictionaries(
    st.sampled_from(["policy_name", "data", "steps", "final_loss", "context_mode", "other"]), SCALARS
)
SPECS = st.one_of(
    CHANGES.map(lambda changes: json.dumps(RIGHT | changes)),
    st.sampled_from(REQUIRED).map(lambda name: json.dumps({key: RIGHT[key] for key in RIGHT if key != name})),
    st.integers(0, len(json.dumps(RIGHT)) - 1).map(lambda end: json.dumps(RIGHT)[:end]),
)


@settings(derandomize=True, max_examples=150)
@given(text=SPECS)
def test_fuzz_specs(tmp_path_factory, text):
    """A specification that is cut, lacks an entry or has another one is one message; descriptions may be anything."""
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    if not folder.exists():
        save_field(folder, small_field(small_spec()), small_spec())
    (folder / "flow.json").write_text(text)
    try:
        _, spec = load_field(folder)
    except UserError:
        return
    assert (spec.hidden_size, spec.depth, spec.layer_indices) == (8, 1, (1, 2)) and json.loads(text).keys() <= set(
        RIGHT
    )
