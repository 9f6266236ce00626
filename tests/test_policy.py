"""Policies that cannot be trained are refused by one message, before their weights are read."""

import json

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions
from rlfr_vlm.policy import load_processor
from tests.models.small_families import TEXTS, VISION, build_policy, build_processor


@pytest.fixture
def save(tmp_path):
    """Saves config and processor of a small family, with changes to a file of the folder."""

    def build(name, file="config.json", **changes):
        family = (VISION | TEXTS)[name]
        processor = build_processor(family)
        build_policy(family, processor).config.save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        settings = json.loads((tmp_path / file).read_text()) | changes
        (tmp_path / file).write_text(json.dumps({key: value for key, value in settings.items() if value != "absent"}))
        return str(tmp_path)

    return build


def message(folder, **options):
    with pytest.raises(UserError) as caught:
        load_processor(folder, DataOptions(**options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "name"), [("minicpmo", "MiniCPM-o"), ("kimi_vl", "Kimi-VL"), ("minicpmv", "MiniCPM-V before 4.6")]
)
def test_what_transformers_does_not_carry_is_refused_by_name(save, model_type, name):
    text = message(save("Qwen2.5-VL", model_type=model_type))
    assert text.startswith(f"{name} (model_type {model_type!r}) cannot be trained: transformers has no class for it")
    assert text.endswith("Use a family of the table in rlfr_vlm/models/README.md.")


def test_internvl_of_its_authors_names_the_checkpoint_to_use(save):
    assert "Load the checkpoint whose name ends in -hf" in message(save("InternVL", model_type="internvl_chat"))


def test_an_unknown_family_is_refused_before_its_weights_are_read(save):
    text = message(save("Llama", model_type="gptj"))
    assert "(model_type 'gptj') belongs to no known model family; known are llama" in text
    assert "write a file in rlfr_vlm/models/" in text


def test_a_processor_of_another_family(save, tmp_path):
    folder = save("Qwen2.5-VL")
    build_processor(VISION["LLaVA"]).save_pretrained(tmp_path)
    text = message(folder)
    assert "is a Qwen2-VL and Qwen2.5-VL policy, but its processor LlavaProcessor belongs to LLaVA" in text


def test_a_tokenizer_where_a_processor_belongs(save, tmp_path):
    folder = save("LLaVA")
    for file in ("preprocessor_config.json", "processor_config.json"):
        (tmp_path / file).unlink(missing_ok=True)
    text = message(folder)
    assert text.startswith(f"Cannot load the model {folder!r}: Can't load image processor for")
    assert text.endswith("Give a model folder, or a hub id this machine can reach.")


def test_a_config_with_a_value_of_another_type(save):
    folder = save("Llama", num_hidden_layers="four")
    assert message(folder).startswith(f"Cannot load the model {folder!r}: ")


@pytest.mark.parametrize(("name", "missing"), [("LLaVA", "patch_size"), ("LLaVA-OneVision", "num_image_tokens")])
def test_a_processor_without_a_value_that_it_needs(save, name, missing):
    text = message(save(name, "processor_config.json", **{missing: "absent"}))
    assert text == (
        f"The processor of this {name} policy has no {missing}, so the tokens of its images cannot be counted. Set "
        f"{missing} in the policy's processor_config.json, as the published checkpoint has it."
    )


def test_limits_reach_the_processor_or_are_refused(save):
    from rlfr_vlm.data.lengths import TokenCounter

    processor = load_processor(save("Pixtral"), DataOptions(image_max_pixels=28 * 28))
    assert processor.image_processor.size["longest_edge"] == 28
    assert TokenCounter(processor).image_tokens([(640, 480)]) == 2 * (2 + 1)  # two rows of two tokens and a break
    text = message(save("Gemma 3"), image_max_pixels=784)
    assert text.startswith("image_max_pixels is 784, but Gemma 3 cannot keep it: its processor resizes every image")


def test_a_known_family_loads(save):
    assert load_processor(save("SmolVLM"), DataOptions()).image_seq_len == 4


HUB_ID = "nobody/no-such-policy"
NOWHERE = "it is no folder and in no cache on this machine"


@pytest.mark.parametrize(
    ("offline", "arguments", "reason"),
    [
        (True, {}, f"{NOWHERE}, and HF_HUB_OFFLINE=1 forbids to ask the hub."),
        (False, {}, f"{NOWHERE}, and the hub cannot be reached."),
        (False, {"local_files_only": True}, f"{NOWHERE}."),
    ],
)
def test_a_hub_id_that_cannot_be_read_says_whether_the_hub_was_asked(
    offline, arguments, reason, monkeypatch, tmp_path
):
    """What huggingface_hub 1.33 and transformers 5.17 raise; the hub itself is not asked here."""
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError
    from transformers import PreTrainedConfig

    def unread(name, **kwargs):
        raise OSError(f"We couldn't connect to the hub for {name}.\nMore lines") from LocalEntryNotFoundError("none")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", unread)
    with pytest.raises(UserError) as caught:
        load_processor(HUB_ID, DataOptions(), **arguments)
    expected = f"Cannot load the model '{HUB_ID}': {reason} Give a model folder, or a hub id this machine can reach."
    assert str(caught.value) == expected


def test_what_is_raised_for_a_hub_id_offline_is_what_is_read(capsys):
    """The libraries' own errors, with HF_HUB_OFFLINE set as for all tests."""
    from rlfr_vlm.cli import main

    for command in (["plan", "--rows", "8"], ["train", "--output_dir", "none", "--dataset_name", "digits"]):
        assert main([*command, "--method", "rlvr", "--model_name_or_path", HUB_ID, "--bf16", "false"]) == 2
        error = capsys.readouterr().err
        assert f"{NOWHERE}, and HF_HUB_OFFLINE=1 forbids to ask the hub." in error and error.count("\n") == 1
