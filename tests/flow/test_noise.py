"""Noise plans: what is shared, what is drawn, and what antithetic draws cancel."""

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import FlowInputs, NoisePlan, layer_deviations


def inputs_of(rows: int, tokens: int, width: int = 4) -> FlowInputs:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, rows, tokens, width, generator=generator)
    return FlowInputs(target, target, torch.ones(rows, tokens, dtype=torch.bool), torch.tensor([0.25, 0.5]))


def zero_field(x_t, t, cond, layer, image=None):
    """Predicts 0, so that a deviation is w(t) times the mean over D of (target - noise)^2."""
    return torch.zeros_like(x_t)


def test_tokens_of_a_response_share_row_noise():
    inputs = inputs_of(2, 3)
    noise = torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(1))
    found = layer_deviations(zero_field, inputs, [0.8], row_noise=noise, tokens_at_once=2)[0]
    for row in range(2):
        for token in range(3):
            expected = 4 * (inputs.target[:, row, token] - noise[0, :, row]).square().mean(dim=-1)
            torch.testing.assert_close(found[:, row, token], expected)


def test_antithetic_draws_average_both_signs():
    """The mean of (x - e)^2 and (x + e)^2 is x^2 + e^2: the term 2xe, which orders tokens by chance, is gone."""
    inputs = inputs_of(1, 3)
    noise = torch.randn(1, 2, 1, 4, generator=torch.Generator().manual_seed(1))
    found = layer_deviations(zero_field, inputs, [0.5], row_noise=noise, antithetic=True)[0]
    expected = inputs.target.square().mean(dim=-1) + noise[0].square().mean(dim=-1)[..., None]
    torch.testing.assert_close(found, expected)


def test_several_draws_are_averaged_and_chunks_do_not_matter():
    inputs = inputs_of(3, 4)
    noise = torch.randn(5, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    whole = layer_deviations(zero_field, inputs, [0.8, 0.5], row_noise=noise, antithetic=True)
    parts = layer_deviations(zero_field, inputs, [0.8, 0.5], row_noise=noise, antithetic=True, tokens_at_once=20)
    torch.testing.assert_close(whole, parts)
    single = [layer_deviations(zero_field, inputs, [0.8, 0.5], row_noise=one[None], antithetic=True) for one in noise]
    torch.testing.assert_close(whole, torch.stack(single).mean(dim=0))


def test_draws_for_each_token_are_averaged():
    inputs = inputs_of(1, 2)
    found = layer_deviations(zero_field, inputs, [0.5], draws=3, generator=torch.Generator().manual_seed(2))[0]
    drawn = torch.randn(3, 2, 2, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(found, (inputs.target - drawn[:, :, None]).square().mean(dim=(0, -1)))


def test_a_contrast_is_the_difference_of_two_classes_under_one_noise():
    """The field predicts its class everywhere: (x - e - 1)^2 of right minus (x - e)^2 of wrong."""
    inputs = inputs_of(1, 2)
    noise = torch.randn(1, 2, 1, 4, generator=torch.Generator().manual_seed(1))

    def classes(x_t, t, cond, layer, image=None, label=None):
        return torch.zeros_like(x_t) + label

    found = layer_deviations(classes, inputs, [0.5], row_noise=noise, contrast=True)[0]
    difference = inputs.target - noise[0][:, :, None]
    expected = ((1 - difference).square() - difference.square()).mean(dim=-1)
    torch.testing.assert_close(found, expected)
    assert (found < 0).any()


def test_no_noise_is_zero_noise_whatever_the_other_settings():
    plan = NoisePlan("none", 4, True)
    drawn = plan.draw(3, 2, 4, torch.Generator(), torch.device("cpu"))
    assert drawn.shape == (1, 2, 3, 4) and not drawn.any()
    assert not plan.uses_both_signs


def test_plans_that_cannot_be():
    with pytest.raises(UserError, match=r"flow_noise is 'respons'; choose one of .* Did you mean 'response'"):
        NoisePlan("respons")
    with pytest.raises(UserError, match="flow_noise_draws is 0"):
        NoisePlan(draws=0)
