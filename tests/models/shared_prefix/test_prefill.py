"""One forward pass of a prompt for all its responses: the same logits, and where `generate` must do it."""

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from rlfr_vlm.data.encode import encode_prompts
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.data.rows import Row
from rlfr_vlm.models.shared_prefix.prefill import prompts_prefilled_once, shared_prefill
from rlfr_vlm.sampling.engine import Sampling
from rlfr_vlm.sampling.hf import HfEngine
from tests.models.small_families import TEXTS, VISION, built

# Sliding-window and linear attention keep other caches, which `generate` fills.
OWN_CACHE = {
    "Mistral", "Gemma 2", "Gemma 3 (text)", "GPT-OSS", "Gemma 4 (text)", "OLMo3", "LFM2", "Qwen3.5 (text)",
    "Qwen3-Next", "Cohere2",
}  # fmt: skip
PROMPTS = torch.tensor([[0, 0, 11, 12, 13], [20, 21, 22, 23, 24], [0, 0, 11, 12, 13], [0, 0, 11, 12, 13]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1] * 5, [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]])


@pytest.mark.parametrize("name", TEXTS)
def test_generation_goes_on_from_the_shared_pass(name):
    policy = built(TEXTS[name]).policy
    cache = shared_prefill(policy, PROMPTS, MASK)
    assert (cache is None) == (name in OWN_CACHE)
    if cache is None:
        return
    assert cache.get_seq_length() == 4 and cache.layers[0].keys.shape[0] == 4
    settings = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    inputs = {"input_ids": PROMPTS, "attention_mask": MASK}
    plain = policy.generate(**inputs, **settings)
    shared = policy.generate(**inputs, past_key_values=cache, **settings)
    torch.testing.assert_close(torch.stack(shared.logits), torch.stack(plain.logits), atol=1e-5, rtol=1e-5)


def test_prompts_that_do_not_repeat_and_prompts_of_one_token_are_left_to_generate():
    policy = built(TEXTS["Llama"]).policy
    assert shared_prefill(policy, PROMPTS[:2], MASK[:2]) is None
    assert shared_prefill(policy, PROMPTS[[0, 0], -1:], MASK[[0, 0], -1:]) is None


def test_the_engine_runs_each_prompt_once():
    """Eight responses to two prompts: two rows in the pass of the prompts, and one token a row in the passes after."""
    family = built(TEXTS["Llama"])
    shapes = []
    family.policy.model.layers[0].register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[:2])))
    rows = [Row(prompt=[{"role": "user", "content": text}], images=[]) for text in ("one", "three")]
    samples = HfEngine(family.policy, family.processor, Sampling(max_new_tokens=3)).sample(rows * 4, [5] * 8)
    assert len(samples) == 8 and len({tuple(sample.ids) for sample in samples}) > 1
    assert shapes[0][0] == 2 and shapes[0][1] > 1
    assert set(shapes[1:]) == {(8, 1)}


SIZES = ([(100, 75)], [], [(56, 28), (64, 64)])


def image_rows(prompts):
    """Rows of three prompts with one, no and two images."""
    pictures = [[Image.effect_noise(size, 90).convert("RGB") for size in sizes] for sizes in SIZES]
    return [
        {"prompt": build_messages("What is it?" + " Think." * prompt, len(pictures[prompt])),
         "images": pictures[prompt]} for prompt in prompts
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL"])
@pytest.mark.parametrize("prompts", [[0, 1, 0, 2, 2, 0], [1, 1], [0, 0], [0, 1]])
def test_prompts_with_images(name, prompts):
    """A batch of text comes after one with images, whose positions the model must forget."""
    family = built(VISION[name])
    policy = family.policy
    settings = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    inputs = encode_prompts(family.processor, image_rows(prompts)).model_inputs()
    tokens = []
    policy.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, args: tokens.append(args[0].shape[0] * args[0].shape[1])
    )
    policy.generate(**encode_prompts(family.processor, image_rows([0, 2])).model_inputs(), **settings)
    policy.model.rope_deltas = None  # of these rows
    plain = policy.generate(**inputs, **settings)
    row_wise, tokens[:] = max(tokens[4:]), []
    policy.generate(**encode_prompts(family.processor, image_rows([0, 2])).model_inputs(), **settings)
    tokens.clear()
    with prompts_prefilled_once(policy):
        shared = policy.generate(**inputs, **settings)
    torch.testing.assert_close(torch.stack(shared.logits), torch.stack(plain.logits), atol=1e-5, rtol=1e-5)
    distinct, length = len(set(prompts)), inputs["input_ids"].shape[1]
    assert row_wise == len(prompts) * length
    assert max(tokens) == (distinct * (length - 1) if distinct < len(prompts) else row_wise)
    assert "generate" not in vars(policy)


@pytest.mark.parametrize(
    ("given", "is_shared"),
    [
        ({}, True),
        ({"generation_config": GenerationConfig()}, True),
        ({"pixel_values_videos": torch.zeros(1)}, False),
        ({"generation_config": GenerationConfig(cache_implementation="static")}, False),
        ({"generation_config": GenerationConfig(num_beams=2)}, False),
        ({"generation_config": GenerationConfig(use_cache=False)}, False),
    ],
)
def test_what_cannot_go_on_from_the_cache_is_left_to_generate(monkeypatch, given, is_shared):
    policy, calls = built(VISION["Qwen2.5-VL"]).policy, []
    monkeypatch.setattr(type(policy), "generate", lambda self, **inputs: calls.append(inputs))
    ids = torch.tensor([[5, 6], [5, 6]])
    with prompts_prefilled_once(policy):
        policy.generate(ids, torch.ones_like(ids), **given)
    assert ("past_key_values" in calls[0]) is is_shared


def test_a_generate_method_of_the_user_is_put_back():
    policy = built(VISION["Qwen2.5-VL"]).policy
    policy.generate = own = lambda **inputs: None
    with prompts_prefilled_once(policy):
        pass
    assert policy.generate is own
