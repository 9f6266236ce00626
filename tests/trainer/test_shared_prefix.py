"""Passes with shared prompts against row-wise ones: log-probs, entropies, gradients and latents of every family."""

import pytest
import torch
from PIL import Image
from trl.trainer.utils import add_fused_lm_head

from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.models import FAMILIES
from rlfr_vlm.models.latents import capture_latents
from rlfr_vlm.models.shared_prefix.attention import learn_layouts, packed_mask
from rlfr_vlm.models.shared_prefix.prompts import RowImages
from rlfr_vlm.models.shared_prefix.support import why_not_shared
from rlfr_vlm.trainer.shared_prefix import SharedPrefixPolicy, SharedTokens
from tests.models.small_families import TEXTS, VISION, build_policy, build_processor

SHARED = [name for name, family in (VISION | TEXTS).items()
          if any(family.model_type in known.shares_prompts for known in FAMILIES)]  # fmt: skip
GROUPS = [0, 1, 0, 2, 0, 1, 3]  # prompt of each row: groups of three, two, one and one rows, mixed up
SIZES = ([(100, 75)], [], [(56, 28), (64, 64)], [(100, 75)])
RESPONSES = [[200 + row, 210, 220 + row, 205, 203][: 1 + row % 5] for row in range(len(GROUPS))]
T = max(map(len, RESPONSES))


class Case:
    """A policy of a family, and a batch of ragged prompts and responses in groups of unequal sizes."""

    def __init__(self, name):
        family = (VISION | TEXTS)[name]
        self.processor = build_processor(family)
        self.policy = build_policy(family, self.processor)
        add_fused_lm_head(self.policy, temperature=0.9, outputs=("log_probs", "entropy"))
        torch.manual_seed(1)
        pictures = [[Image.effect_noise(size, 90).convert("RGB") for size in sizes] for sizes in SIZES]
        rows = []
        for prompt in GROUPS:
            images = pictures[prompt] if family.processor else []
            # prompts 0 and 3 differ by their images alone
            words = "What is it?" + " Think." * (prompt % 3)
            rows.append({"prompt": build_messages(words, len(images)), "images": images})
        batch = append_responses(encode_prompts(self.processor, rows), RESPONSES, 0)
        self.ids, self.mask, self.images = batch.input_ids, batch.attention_mask, batch.extra
        self.labels = self.ids.masked_fill(self.mask == 0, -100)
        self.labels[:, :-T] = -100
        self.row_images = RowImages.of_batch(
            {**batch.extra, "num_images": [len(row["images"]) for row in rows]}, len(rows)
        )
        self.tokens = SharedTokens()

    def run(self, shared):
        """Log-probs and entropies (B, T) of one pass."""
        inputs = {"input_ids": self.ids, "attention_mask": self.mask, "labels": self.labels, **self.images}
        model = self.policy
        if shared:
            learn_layouts(model)
            model = SharedPrefixPolicy(model, self.policy, T, self.row_images, self.tokens)
        output = model(**inputs, fused_lm_head=True)
        return output.log_probs[:, -T:], output.entropy[:, -T:]

    def gradients(self):
        found = {name: weight.grad for name, weight in self.policy.named_parameters() if weight.grad is not None}
        self.policy.zero_grad()
        return found


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_pass_equals_a_row_wise_one(name):
    case = Case(name)
    weights = torch.rand(2, len(GROUPS), T)
    results, gradients, latents = [], [], []
    for shared in (False, True):
        with capture_latents(case.policy, (1, 2, 4), T + 2, prompt_mask=case.mask.bool()) as captured:
            result = torch.stack(case.run(shared))
        (result * weights).sum().backward()
        results.append(result.detach())
        gradients.append(case.gradients())
        latents.append(captured[0])
    assert results[0][0].min() < -1 and results[0][1].max() > 1
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    for weight, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][weight], gradient, atol=2e-5, rtol=1e-3, msg=weight)
    real = case.mask[:, -T - 2 :].bool()
    torch.testing.assert_close(latents[1].hidden[:, real], latents[0].hidden[:, real], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(latents[1].prompt, latents[0].prompt, atol=1e-5, rtol=1e-4)


def test_tokens_and_images_are_run_once():
    case = Case("Qwen2.5-VL")
    patches, original = [], case.policy.model.visual.forward

    def visual(pixels, *args, **kwargs):
        patches.append(len(pixels))
        return original(pixels, *args, **kwargs)

    case.policy.model.visual.forward = visual
    case.run(shared=True)
    lengths = case.mask[:, :-T].sum(dim=1)[[0, 1, 3, 6]]  # a row of each prompt
    assert case.tokens.packed == int(lengths.sum()) - 4 + sum(len(response) + 1 for response in RESPONSES)
    assert case.tokens.row_wise == case.mask.numel()
    assert (case.tokens.packed_images, case.tokens.row_images) == (4, 6)  # 1 + 2 + 1 distinct ones; 3 + 0 + 2 + 1
    grids = case.row_images.image_grid_thw.prod(dim=1).tolist()  # rows 0, 2, 3 (two images), 4 and 6
    assert patches == [grids[0] + grids[2] + grids[3] + grids[5]]


def test_rows_of_other_prompts_run_without_padding():
    case, rows = Case("Qwen2.5-VL"), [0, 1, 3, 6]  # a row of each prompt, with one image, none, two and one
    expected = case.run(shared=False)[0][rows]
    case.ids, case.mask, case.labels = case.ids[rows], case.mask[rows], case.labels[rows]
    case.row_images = case.row_images.of_rows(rows)
    case.images = {"mm_token_type_ids": case.images["mm_token_type_ids"][rows],
                   "pixel_values": case.row_images.pixel_values,
                   "image_grid_thw": case.row_images.image_grid_thw}  # fmt: skip
    log_probs, _ = case.run(shared=True)
    torch.testing.assert_close(log_probs, expected, atol=1e-5, rtol=1e-5)
    assert case.tokens.packed == int(case.mask.sum()) < case.tokens.row_wise == case.mask.numel()


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_runs_blocks_again_with_the_layout(reentrant):
    case = Case("Qwen2.5-VL")
    case.policy.train()
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            case.policy.gradient_checkpointing_enable({"use_reentrant": reentrant})
            case.policy.enable_input_require_grads()
        case.run(shared=True)[0].sum().backward()
        found.append(case.gradients())
    for weight, gradient in found[0].items():
        torch.testing.assert_close(found[1][weight], gradient, msg=weight)


def test_a_layer_that_does_not_know_the_layout_gives_nan_not_wrong_numbers():
    case = Case("Llama")
    model = SharedPrefixPolicy(case.policy, case.policy, T, None, case.tokens)  # not told by learn_layouts
    output = model(input_ids=case.ids, attention_mask=case.mask, labels=case.labels, fused_lm_head=True, **case.images)
    assert output.log_probs[case.labels[:, -T:] != -100].isnan().all()


def test_masks_of_four_dimensions_are_passed_on():
    """Read in transformers 5.17."""
    from transformers.masking_utils import create_causal_mask

    mask = packed_mask(torch.device("cpu"))
    config = build_policy(TEXTS["Llama"], build_processor(TEXTS["Llama"])).config
    found = create_causal_mask(
        config=config, inputs_embeds=torch.zeros(1, 5, 32), attention_mask=mask, past_key_values=None
    )
    assert found is mask


def test_why_prompts_are_not_shared():
    policy = build_policy(TEXTS["Llama"], build_processor(TEXTS["Llama"]))
    assert why_not_shared(policy) is None
    learn_layouts(policy)
    assert why_not_shared(policy) is None  # told once already
    policy.config._attn_implementation_internal = "eager"
    assert why_not_shared(policy) == "the policy's attention is eager, and packed rows are tested with sdpa"
    policy.config._attn_implementation_internal = "sdpa"
    policy.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4}
    assert "rotary embedding is of the type dynamic" in why_not_shared(policy)
    policy.config.layer_types = ["full_attention", "sliding_attention"] * 2
    assert "layers of the type sliding_attention" in why_not_shared(policy)
    policy.config.layer_types, policy.config.sliding_window = None, 64
    assert "sliding window of 64 tokens" in why_not_shared(policy)
    other = build_policy(TEXTS["GPT-2"], build_processor(TEXTS["GPT-2"]))
    assert why_not_shared(other) == "passes over packed rows are not tested with gpt2 policies"


@pytest.mark.parametrize("rows", [[2], list(range(len(GROUPS)))])
def test_rows_without_a_scored_token(rows):
    """As `mask_truncated_completions` makes them: some of a batch, and all of it."""
    case, found = Case("Qwen2.5-VL"), []
    case.mask[rows, -T:], case.labels[rows] = 0, -100
    for shared in (False, True):
        log_probs, entropies = case.run(shared)
        log_probs.sum().backward()
        found.append((log_probs, entropies, case.gradients()["lm_head.weight"]))
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-3)
    assert (found[1][0][rows] == 0).all()
