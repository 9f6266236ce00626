"""Which latent conditions which token."""

import pytest
import torch

from rlfr_vlm.flow import FlowInputs, FlowSpec, pair_tokens


def latents(values: list[float]) -> torch.Tensor:
    """One layer, one sample, D = 1."""
    return torch.tensor(values)[None, None, :, None]


def test_token_pre_takes_the_next_token_and_the_last_has_no_partner():
    target, cond, mask = pair_tokens(
        latents([10.0, 20.0, 30.0]), torch.ones(1, 3, dtype=torch.bool), 3, "token_pre", 1
    )
    assert target.flatten().tolist() == [10, 20, 30]
    assert cond.flatten().tolist()[:2] == [20, 30]
    assert mask.tolist() == [[True, True, False]]


def test_token_post_takes_the_previous_token_and_the_first_gets_the_prompts_last():
    target, cond, mask = pair_tokens(
        latents([5.0, 10.0, 20.0]), torch.ones(1, 3, dtype=torch.bool), 2, "token_post", 1
    )
    assert target.flatten().tolist() == [10, 20]
    assert cond.flatten().tolist() == [5, 10]
    assert mask.tolist() == [[True, True]]


def test_identity_conditions_on_the_token_itself():
    target, cond, mask = pair_tokens(latents([10.0, 20.0]), torch.ones(1, 2, dtype=torch.bool), 2, "identity", 1)
    assert torch.equal(target, cond)
    assert mask.all()


def test_padding_is_nobodys_partner():
    valid = torch.tensor([[True, True, False]])
    _, _, mask = pair_tokens(latents([10.0, 20.0, 99.0]), valid, 3, "token_pre", 1)
    assert mask.tolist() == [[True, False, False]]
    _, _, mask = pair_tokens(latents([99.0, 10.0, 20.0]), torch.tensor([[False, True, True]]), 2, "token_post", 1)
    assert mask.tolist() == [[False, True]]  # a left-padded prompt shorter than the shift


@pytest.mark.parametrize(("shift", "expected"), [(2, [True, True, False, False]), (4, [False] * 4), (9, [False] * 4)])
def test_shift_generalises_the_distance(shift, expected):
    hidden = latents([1.0, 2.0, 3.0, 4.0])
    _, cond, mask = pair_tokens(hidden, torch.ones(1, 4, dtype=torch.bool), 4, "token_pre", shift)
    assert mask[0].tolist() == expected
    if shift == 2:
        assert cond.flatten().tolist()[:2] == [3.0, 4.0]


def test_prompt_shorter_than_the_shift_leaves_tokens_without_partner():
    # token_post with shift 3 wants three prompt positions; only one was there to capture
    hidden, valid = latents([5.0, 10.0, 20.0, 30.0]), torch.ones(1, 4, dtype=torch.bool)
    target, cond, mask = pair_tokens(hidden, valid, 3, "token_post", 3)
    assert target.flatten().tolist() == [10, 20, 30]
    assert mask.tolist() == [[False, False, True]]
    assert cond.flatten().tolist()[2] == 5


def test_spec_normalises_each_layer_with_its_own_statistics():
    spec = FlowSpec(1, 1, 4, (0.25, 0.5), (1, 2), latent_mean=(1.0, 10.0), latent_std=(2.0, 5.0))
    hidden = torch.tensor([3.0, 20.0]).view(2, 1, 1, 1).expand(2, 1, 2, 1)
    inputs = spec.inputs(hidden, torch.ones(1, 2), 2, image=torch.tensor([5.0, 0.0]).view(2, 1, 1))
    assert inputs.target[:, 0, 0, 0].tolist() == [1.0, 2.0]  # (3-1)/2, (20-10)/5
    assert inputs.image.flatten().tolist() == [2.0, -2.0]  # (5-1)/2, (0-10)/5
    assert inputs.layer_positions.tolist() == [0.25, 0.5]


def test_packed_image_context_follows_its_row():
    spec = FlowSpec(1, 1, 4, (0.25,), (1,), context_mode="identity", image_context=True)
    image = torch.tensor([7.0, 8.0]).view(1, 2, 1)
    inputs = spec.inputs(torch.zeros(1, 2, 2, 1), torch.tensor([[1, 1], [1, 0]]), 2, image)
    assert inputs.packed()[2].flatten().tolist() == [7.0, 7.0, 8.0]


def test_chunks_are_the_same_inputs_a_few_tokens_at_a_time():
    hidden = torch.arange(24.0).view(1, 2, 3, 4)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    inputs = FlowInputs(hidden, hidden + 1, mask, torch.ones(1))
    chunks = list(inputs.chunks(3))
    assert [chunk.mask.sum().item() for chunk in chunks] == [3, 1]
    assert torch.equal(torch.cat([chunk.packed()[0] for chunk in chunks], dim=1), inputs.packed()[0])
    assert list(FlowInputs(hidden, hidden, mask & False, torch.ones(1)).chunks(3)) == []
