"""LoRA of the language tower, and its weights for the engine: the merged ones, with the base untouched."""

import hashlib

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import ModelOptions
from rlfr_vlm.trainer.lora import lora_config, lora_targets
from rlfr_vlm.trainer.vllm.lora_sync import merged_parameters


@pytest.fixture
def adapted(make_policy):
    """A policy in bfloat16 with adapters that do something."""
    from peft import get_peft_model

    policy = make_policy().bfloat16()
    config = lora_config(policy, ModelOptions(use_peft=True, lora_r=4))
    policy = get_peft_model(policy, config)
    torch.manual_seed(1)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return policy


class Generation:
    """The parts of TRL's `VLLMGeneration` that are used."""

    def __init__(self, model):
        from trl.distributed import DistributedBackend
        from trl.generation.vllm_generation import VLLMGeneration

        class State:
            deepspeed_plugin = fsdp_plugin = None

        self.model, self._dist = model, DistributedBackend(type("Accelerator", (), {"state": State}))
        self._fix_param_name_to_vllm = lambda *a, **k: VLLMGeneration._fix_param_name_to_vllm(self, *a, **k)
        self.trls = lambda: VLLMGeneration._iter_named_params(self)


def digest(policy):
    base = [p for name, p in policy.named_parameters() if "lora_" not in name]
    return hashlib.sha256(b"".join(p.detach().float().numpy().tobytes() for p in base)).hexdigest()


def test_many_syncs_leave_the_base_weights_as_they_were(adapted):
    """Merging and unmerging, TRL's way, wears them in bfloat16."""
    before = digest(adapted)
    generation = Generation(adapted)
    sent = dict(merged_parameters(generation))
    for _ in range(5):
        assert all(torch.equal(weight, sent[name]) for name, weight in merged_parameters(generation))
    assert digest(adapted) == before
    theirs = {name: weight.clone() for name, weight in generation.trls()}
    assert theirs.keys() == sent.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(sent[name], weight, rtol=2e-2, atol=2e-3)
    for _ in range(5):
        list(generation.trls())
    assert digest(adapted) != before


def test_what_is_sent_is_the_adapted_policy(adapted, make_policy, processor, digits):
    from rlfr_vlm.data.encode import encode_prompts

    plain = make_policy().bfloat16()
    missing = plain.load_state_dict(dict(merged_parameters(Generation(adapted))), strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}  # tied
    batch = encode_prompts(processor, [digits[0], digits[1]]).model_inputs()
    with torch.no_grad():
        expected, found, base = (
            m.float()(**batch).logits for m in (adapted.eval(), plain.eval(), make_policy().eval())
        )
    assert (found - expected).abs().max() < 0.1 * (base - expected).abs().max()


def test_only_the_language_tower_is_adapted(make_policy, make_text_policy):
    names = lora_targets(make_policy(), [])
    assert len(names) == 4 * 7 and all(name.startswith("model.language_model.layers.") for name in names)
    assert lora_targets(make_text_policy(), ["q_proj"]) == [f"model.layers.{n}.self_attn.q_proj" for n in range(4)]
    with pytest.raises(UserError, match="'fc1', which is not a linear layer of the language tower"):
        lora_targets(make_policy(), ["fc1"])
    assert lora_config(make_policy(), ModelOptions()) is None


def test_blocks_without_linear_layers_are_refused():
    from tests.models.small_families import TEXTS, build_policy, build_processor

    policy = build_policy(TEXTS["GPT-2"], build_processor(TEXTS["GPT-2"]))
    with pytest.raises(UserError, match="the decoder blocks of GPT2LMHeadModel have no layer of torch's class Linear"):
        lora_targets(policy, [])
