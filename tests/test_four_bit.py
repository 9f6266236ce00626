"""`load_in_4bit`: what is quantised, and the reasons for which it is refused."""

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.four_bit import four_bit_config, refuse_four_bits
from rlfr_vlm.models import family_of
from rlfr_vlm.options import ModelOptions, RunOptions
from rlfr_vlm.policy import load_policy


def test_reasons_one_after_the_other(monkeypatch):
    refuse_four_bits(ModelOptions())  # not asked for
    with pytest.raises(UserError, match=r"4-bit weights cannot be trained themselves\. Set use_peft: true"):
        refuse_four_bits(ModelOptions(load_in_4bit=True))
    options = ModelOptions(load_in_4bit=True, use_peft=True)
    with pytest.raises(UserError, match="rollout is vllm-colocate: vLLM takes merged weights"):
        refuse_four_bits(options, "vllm-colocate")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="this machine has no GPU"):
        refuse_four_bits(options)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("rlfr_vlm.four_bit.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rlfr-vlm\[qlora\]'"):
        refuse_four_bits(options)
    monkeypatch.setattr("rlfr_vlm.four_bit.importlib.util.find_spec", lambda name: object())
    refuse_four_bits(options)


def test_vision_tower_and_head_stay_whole(make_policy, make_text_policy):
    config = four_bit_config(family_of(make_policy()))
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert config.llm_int8_skip_modules == ["lm_head", "model.visual"]
    names = dict(make_policy().named_modules())
    assert all(name in names for name in config.llm_int8_skip_modules)
    assert four_bit_config(family_of(make_text_policy())).llm_int8_skip_modules == ["lm_head"]


def test_the_policy_is_loaded_with_it(make_policy, processor, tmp_path, monkeypatch):
    make_policy().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    monkeypatch.setattr("rlfr_vlm.policy.refuse_four_bits", lambda options: None)
    given = {}
    monkeypatch.setattr(
        "rlfr_vlm.policy.load_model_and_processor",
        lambda name, options, **kwargs: given.update(kwargs) or (None, None),
    )
    load_policy(RunOptions(model_name_or_path=str(tmp_path), load_in_4bit=True, use_peft=True))
    assert given["quantization_config"].llm_int8_skip_modules == ["lm_head", "model.visual"]
