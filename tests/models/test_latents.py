"""Latents equal transformers' hidden states, whatever wraps the policy, and nothing else is kept."""

import pytest
import torch

from rlfr_vlm.data.digits import digit_rows
from rlfr_vlm.data.encode import encode_examples
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.models.latents import capture_latents, masked_mean, only_first_blocks
from rlfr_vlm.models.towers import find_language_tower

LAYERS = (1, 3, 4)


@pytest.fixture
def batch(processor):
    """Four rows with prompts of different length (left-padded) and responses of different length."""
    rows = digit_rows("train", 4, 3)
    rows[0]["prompt"][0]["content"] = "a much longer question: what is the sum?"
    rows[1]["response"] = "7"
    for row in rows:
        row["prompt"] = build_messages(row["prompt"], 1)
    encoded = encode_examples(processor, rows)
    assert (encoded.attention_mask[:, 0] == 0).any() and not encoded.completion_mask.all()
    return encoded


def expected_hidden(policy, batch, last):
    """Raw outputs of the blocks, by transformers' own recorder. Its last entry is normalised: block 4 is left out."""
    with torch.no_grad():
        output = policy(**batch.model_inputs(), output_hidden_states=True)
    return torch.stack([output.hidden_states[i] for i in LAYERS[:2]])[:, :, -last:]


def test_equal_to_output_hidden_states_under_left_padding(make_policy, batch):
    policy, last = make_policy(), batch.completion_mask.shape[1] + 1
    with torch.no_grad(), capture_latents(policy, LAYERS, last) as captured:
        policy(**batch.model_inputs())
    hidden = captured[0].hidden
    assert hidden.shape == (3, 4, last, 32)
    torch.testing.assert_close(hidden[:2], expected_hidden(policy, batch, last))


def test_last_block_is_raw_not_normalised(make_policy, batch):
    policy = make_policy()
    with torch.no_grad(), capture_latents(policy, (4,), 5) as captured:
        output = policy(**batch.model_inputs(), output_hidden_states=True)
    normalised = policy.model.language_model.norm(captured[0].hidden[0])
    torch.testing.assert_close(normalised, output.hidden_states[4][:, -5:])


def test_only_the_slice_is_kept_and_it_is_detached(make_policy, batch):
    policy = make_policy().train()
    with capture_latents(policy, LAYERS, 2, rows=torch.tensor([True, False, True, False])) as captured:
        policy(**batch.model_inputs())
    hidden = captured[0].hidden
    assert hidden.shape == (3, 2, 2, 32)
    assert not hidden.requires_grad
    assert hidden.untyped_storage().nbytes() == hidden.numel() * 4


def test_rows_in_chunks_equal_rows_at_once(make_policy, make_text_policy, batch):
    policy = make_text_policy()
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    rows = torch.tensor([False, True, True, True])
    seen: list[int] = []
    with torch.no_grad():
        with capture_latents(policy, LAYERS, 3, rows=rows) as whole:
            policy(**inputs)
        chunks = []
        with capture_latents(
            policy, LAYERS, 3, rows=rows, consume=lambda first, latents: (seen.append(first), chunks.append(latents))
        ):
            for start in (0, 2):
                policy(**{name: value[start : start + 2] for name, value in inputs.items()})
    assert seen == [0, 2]
    torch.testing.assert_close(torch.cat([chunk.hidden for chunk in chunks], dim=1), whole[0].hidden)


def test_hooks_are_gone_after_an_exception(make_policy, batch):
    policy = make_policy()
    with pytest.raises(RuntimeError, match="boom"), capture_latents(policy, LAYERS, 2):
        raise RuntimeError("boom")
    assert all(not block._forward_hooks for block in find_language_tower(policy).layers)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_neither_latents_nor_gradients(make_policy, batch, use_reentrant):
    def run(checkpointing: bool, capture: bool) -> tuple[torch.Tensor | None, torch.Tensor]:
        policy = make_policy().train()
        if checkpointing:
            policy.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            policy.enable_input_require_grads()
        captured = []
        if capture:
            with capture_latents(policy, LAYERS, 4) as captured:
                loss = policy(**batch.model_inputs(), labels=batch.input_ids).loss
        else:
            loss = policy(**batch.model_inputs(), labels=batch.input_ids).loss
        loss.backward()  # the blocks run again here; hooks must be gone
        assert len(captured) == int(capture)
        gradient = policy.model.language_model.layers[0].mlp.up_proj.weight.grad
        return (captured[0].hidden if capture else None), gradient

    plain_latents, plain_gradient = run(checkpointing=False, capture=True)
    latents, gradient = run(checkpointing=True, capture=True)
    _, gradient_without_capture = run(checkpointing=True, capture=False)
    torch.testing.assert_close(latents, plain_latents)
    torch.testing.assert_close(gradient, plain_gradient)
    assert torch.equal(gradient, gradient_without_capture)


def test_image_mean_is_over_image_tokens_only(make_policy, batch):
    policy = make_policy()
    image_mask = batch.input_ids == policy.config.image_token_id
    assert image_mask.sum(dim=1).tolist() == [2, 2, 2, 2]  # 56x28 pixels are two tokens
    with torch.no_grad(), capture_latents(policy, LAYERS[:2], 1, image_mask=image_mask) as captured:
        output = policy(**batch.model_inputs(), output_hidden_states=True)
    for row, layer in enumerate(LAYERS[:2]):
        for sample in range(4):
            expected = output.hidden_states[layer][sample, image_mask[sample]].mean(dim=0)
            torch.testing.assert_close(captured[0].image[row, sample], expected)


def test_image_mean_of_a_text_row_is_zero():
    hidden = torch.ones(2, 3, 4)
    means = masked_mean(hidden, torch.tensor([[True, False, False], [False] * 3]))
    assert means[:, 0].tolist() == [1.0, 0.0]


def test_shortened_pass_gives_the_same_latents_and_runs_no_further_block_nor_head(make_policy, batch):
    policy = make_policy()
    ran: list[str] = []
    for number, block in enumerate(find_language_tower(policy).layers, start=1):
        block.register_forward_hook(lambda *_, number=number: ran.append(f"block {number}"))
    policy.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    with torch.no_grad():
        with only_first_blocks(policy, 3) as backbone, capture_latents(policy, LAYERS[:2], 4) as captured:
            backbone(**batch.model_inputs())
        assert ran == ["block 1", "block 2", "block 3"]
    torch.testing.assert_close(captured[0].hidden, expected_hidden(policy, batch, 4))
    assert len(find_language_tower(policy).layers) == 4


def test_tower_is_restored_after_an_exception(make_policy):
    policy = make_policy()
    with pytest.raises(RuntimeError), only_first_blocks(policy, 1):
        raise RuntimeError
    assert len(find_language_tower(policy).layers) == 4
