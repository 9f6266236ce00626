"""Log-probs on a CPU and on a GPU: bfloat16 against float32, attentions, TRL's fused pass, prompts that run once."""

import importlib.util

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from rlfr_vlm.trainer.shared_prefix import CHECK_LIMIT, _rounding
from tests.gpu.rows import IGNORED, TEMPERATURE, Rows, small_or_wide, text_policy, with_fused_head

pytestmark = pytest.mark.gpu
BF16_LIMIT = _rounding(torch.float32, "bf16")  # what a run accepts as rounding in its own check


@pytest.fixture
def case(make_policy, processor, device):
    """A policy with images and grouped rows."""
    return with_fused_head(make_policy(**small_or_wide(device)), device), Rows(processor, device)


def in_bf16(device):
    return torch.autocast(device.type, torch.bfloat16)


def largest(difference, rows):
    """Largest absolute difference of a scored token."""
    return float(difference[rows.scored].abs().max())


@torch.no_grad()
def test_bf16_log_probs_are_near_float32_ones(case, device, record_property):
    policy, rows = case
    expected = rows.log_probs(policy)
    with in_bf16(device):
        found = rows.log_probs(policy)
    difference = largest(found - expected, rows)
    record_property("largest difference", difference)
    assert 0 < difference <= BF16_LIMIT  # 0 would mean that nothing ran in bfloat16
    assert expected[rows.scored].max() < -1


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bf16"])
@pytest.mark.parametrize("attention", ["eager", "flash_attention_2"])
def test_attentions_give_the_log_probs_of_sdpa(case, device, attention, dtype, record_property):
    policy, rows = case
    if attention == "flash_attention_2":
        if device.type == "cpu" or dtype == "float32":
            pytest.skip("flash-attn runs in bfloat16 on a GPU")
        if importlib.util.find_spec("flash_attn") is None:
            pytest.skip("no flash-attn here")
    found = {}
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
        for name in ("sdpa", attention):
            policy.set_attn_implementation(name)
            found[name] = rows.log_probs(policy)
    assert policy.config._attn_implementation == attention
    difference = largest(found[attention] - found["sdpa"], rows)
    record_property("largest difference", difference)
    assert difference <= (BF16_LIMIT if dtype == "bf16" else CHECK_LIMIT)


def test_the_fused_pass_gives_the_log_probs_of_all_logits(device, record_property):
    """Values, entropies and gradients; the vocabulary takes two tiles, and on a GPU Triton's kernels run."""
    policy = text_policy(device)
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(0, policy.config.vocab_size, (3, 24), generator=draw).to(device)
    labels = ids.clone()
    labels[:, :8], labels[0, 20:] = IGNORED, IGNORED
    weights = torch.rand(2, 3, 23, generator=draw).to(device)
    scored = labels[:, 1:] != IGNORED

    logits = policy(input_ids=ids).logits[:, :-1] / TEMPERATURE
    every = logits.log_softmax(dim=-1)
    plain = every.gather(-1, ids[:, 1:, None])[..., 0] * scored
    plain_entropy = -(every.exp() * every).sum(dim=-1) * scored
    (torch.stack([plain, plain_entropy]) * weights).sum().backward()
    expected = {name: weight.grad.clone() for name, weight in policy.named_parameters()}
    policy.zero_grad()

    add_fused_lm_head(policy, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    output = policy(input_ids=ids, labels=labels, fused_lm_head=True)
    (torch.stack([output.log_probs, output.entropy]) * weights).sum().backward()
    record_property("largest difference", float((output.log_probs - plain).detach().abs().max()))
    torch.testing.assert_close(output.log_probs, plain, atol=CHECK_LIMIT, rtol=1e-5)
    torch.testing.assert_close(output.entropy, plain_entropy, atol=CHECK_LIMIT, rtol=1e-5)
    for name, weight in policy.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=2e-4, rtol=1e-3, msg=name)
    assert float(plain[scored].min()) < -5


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_prompts_that_run_once_change_no_log_prob(case, device, dtype, record_property):
    policy, rows = case
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
        row_wise, shared = rows.log_probs(policy), rows.log_probs(policy, shared=True)
    difference = largest(shared - row_wise, rows)
    record_property("largest difference", difference)
    assert difference <= (BF16_LIMIT if dtype == "bf16" else CHECK_LIMIT)
