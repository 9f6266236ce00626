"""Towers are found where their family has them, through every wrapper; unknown families are refused by name."""

import pytest
import torch
import transformers
from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import FAMILIES, TEXT, family_of, family_of_processor
from rlfr_vlm.models.towers import find_language_tower, find_vision_tower


class Wrapper(nn.Module):
    """What DDP and DeepSpeed look like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_tower_is_found_through_wrappers(make_policy, make_text_policy):
    from peft import LoraConfig, get_peft_model

    policy, text = make_policy(), make_text_policy()
    tower = policy.model.language_model
    assert find_language_tower(policy).module is tower
    assert find_language_tower(Wrapper(policy)).module is tower
    assert find_language_tower(torch.compile(policy)).module is tower
    assert find_language_tower(text).module is text.model
    assert find_language_tower(text).config.hidden_size == 32
    lora = get_peft_model(policy, LoraConfig(target_modules=["q_proj"]))
    assert find_language_tower(Wrapper(lora)).module is tower


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 16,
    "vocab_size": 50,
    "pad_token_id": 0,
    "layer_types": ["full_attention", "full_attention"],
}


@pytest.mark.parametrize("model_type", TEXT.model_types)
def test_text_towers(model_type):
    config = transformers.AutoConfig.for_model(model_type, **SIZES)
    with torch.device("meta"):
        policy = transformers.AutoModelForCausalLM.from_config(config)
    assert len(find_language_tower(policy).layers) == 2
    assert find_language_tower(policy).config.hidden_size == 16
    assert find_vision_tower(policy) is None


def test_towers_of_qwen2_vl():
    text = {key: SIZES[key] for key in SIZES if key not in ("head_dim", "layer_types", "pad_token_id")}
    config = transformers.Qwen2VLConfig(
        text_config=text
        | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 16},
    )
    policy = transformers.Qwen2VLForConditionalGeneration(config)
    assert len(find_language_tower(policy).layers) == 2
    assert find_vision_tower(policy) is policy.model.visual


def test_each_model_type_and_processor_belongs_to_one_family():
    for names in ([n for f in FAMILIES for n in f.model_types], [n for f in FAMILIES for n in f.processors]):
        assert len(names) == len(set(names))


def test_unknown_families_are_refused_by_name():
    with pytest.raises(
        UserError, match=r"Linear \(model_type None\) belongs to no known model family; known are llama"
    ):
        find_language_tower(nn.Linear(2, 2))
    with torch.device("meta"):
        policy = transformers.GPTJForCausalLM(transformers.GPTJConfig(n_layer=1, n_embd=8, n_head=1, rotary_dim=2))
    with pytest.raises(UserError, match=r"GPTJForCausalLM \(model_type 'gptj'\) .* write a file in rlfr_vlm/models/"):
        family_of(policy)


def test_a_backbone_without_its_head_is_refused(make_text_policy):
    with pytest.raises(
        UserError, match=r"decoder blocks of Qwen2Model at model\.layers\. Load the class with a language"
    ):
        find_language_tower(make_text_policy().model)


def test_processors_have_a_family(processor, text_tokenizer):
    assert family_of_processor(text_tokenizer) is TEXT
    assert "qwen2_5_vl" in family_of_processor(processor).model_types

    class StrangeProcessor:
        image_processor = None

    with pytest.raises(UserError, match="StrangeProcessor belongs to no known model family, so its image tokens"):
        family_of_processor(StrangeProcessor())
