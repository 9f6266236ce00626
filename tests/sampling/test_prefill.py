"""One forward pass of a prompt for all its responses: the same logits, and where `generate` must do it."""

import pytest
import torch

from rlfr_vlm.data.rows import Row
from rlfr_vlm.sampling.engine import Sampling
from rlfr_vlm.sampling.hf import HfEngine
from rlfr_vlm.sampling.prefill import shared_prefill
from tests.models.small_families import TEXTS, built

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
