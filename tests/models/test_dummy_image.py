"""Passes without images: the vision tower runs on a black one, adds nothing, and is left alone while decoding."""

import pytest
import torch

from rlfr_vlm.models.dummy_image import without_missing_images
from rlfr_vlm.models.qwen_vl import smallest_image
from rlfr_vlm.models.towers import find_vision_tower


@pytest.fixture
def counted(make_policy):
    """A policy and the number of passes of its vision tower."""
    policy, passes = make_policy(), []
    find_vision_tower(policy).register_forward_hook(lambda *_: passes.append(1))
    return policy, passes


def forward(policy, **inputs):
    ids = torch.tensor([[10, 11, 12]])
    return policy(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs).logits


def test_a_black_image_changes_nothing_and_reaches_the_tower(counted):
    policy, passes = counted
    plain = forward(policy)
    assert passes == []
    with without_missing_images(policy, dummy=True):
        assert torch.equal(forward(policy), plain)
        forward(policy).sum().backward()
    assert len(passes) == 2
    gradients = [p.grad for p in find_vision_tower(policy).parameters()]
    assert all(gradient is not None and gradient.abs().sum() == 0 for gradient in gradients)  # there, and zero
    forward(policy)
    assert len(passes) == 2  # nothing is left behind


def test_patches_of_other_rows_are_no_images(counted):
    """TRL hands on no patches, but not None, of a batch of which only other rows have images."""
    policy, passes = counted
    pixels, grid = smallest_image(find_vision_tower(policy).config, torch.zeros(1))
    with without_missing_images(policy, dummy=False):
        empty = forward(policy, pixel_values=pixels[:0], image_grid_thw=grid[:0])
    assert torch.equal(empty, forward(policy)) and passes == []


def test_one_more_token_is_decoded_without_looking_again(counted):
    policy, passes = counted
    with without_missing_images(policy, dummy=True):
        policy.generate(input_ids=torch.tensor([[10, 11]]), max_new_tokens=4, do_sample=False, min_new_tokens=4)
    assert len(passes) == 1


def test_mixed_rows_train_when_a_micro_batch_is_all_text(make_trainer, make_policy, tmp_path):
    import json

    from rlfr_vlm.data.digits import digit_rows
    from rlfr_vlm.data.load import load_rows

    rows = []
    for number, row in enumerate(digit_rows("train", 4, 0)):
        row["images"][0].save(tmp_path / f"{number}.png")
        images = [f"{number}.png"] if number % 2 else []
        rows.append({"prompt": row["prompt"] if images else "sum?", "answer": row["answer"], "images": images})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixed = load_rows(str(tmp_path / "rows.jsonl"), columns=("prompt", "answer"))
    trainer = make_trainer(make_policy(), flow="new", dataset=mixed, per_device_train_batch_size=1,
                           steps_per_generation=8, gradient_accumulation_steps=8, pack_by_length=True)  # fmt: skip
    trainer.train()
    assert trainer.state.global_step == 2 and trainer.state.log_history[0]["padding"] == 0.0
