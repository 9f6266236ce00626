"""Path, loss and deviation, with numbers derived by hand. Fields here are plain functions."""

import pytest
import torch

from rlfr_vlm.flow import (
    FlowInputs,
    flow_matching_loss,
    layer_deviations,
    linear_path,
    target_velocity,
    token_flow_losses,
    velocity_deviation,
)


def zero_field(x_t, t, cond, layer, image=None):
    return torch.zeros_like(x_t)


def inputs_of(target: list[list[float]], mask: list[bool]) -> FlowInputs:
    """One layer, one sample, D = 2."""
    values = torch.tensor(target)[None, None]
    return FlowInputs(values, values.clone(), torch.tensor([mask]), torch.tensor([0.5]))


def test_path_ends_are_noise_and_data():
    x_1, noise = torch.tensor([4.0, 8.0]), torch.tensor([2.0, -2.0])
    assert linear_path(x_1, noise, torch.tensor(1.0)).tolist() == [4.0, 8.0]
    assert linear_path(x_1, noise, torch.tensor(0.0)).tolist() == [2.0, -2.0]
    assert target_velocity(x_1, noise).tolist() == [2.0, 10.0]


def test_loss_of_the_zero_field_is_the_mean_square_velocity():
    inputs = inputs_of([[3.0, 1.0], [5.0, 5.0], [9.0, 9.0]], [True, True, False])
    noise = torch.tensor([[[[1.0, 1.0], [5.0, 1.0]]]])
    # u = (2, 0) and (0, 4); mean of squares over D: 2 and 8; the masked token does not count.
    losses = token_flow_losses(zero_field, inputs, noise=noise, t=torch.full((1, 1, 2), 0.5))
    assert losses.tolist() == [[[2.0, 8.0]]]
    assert flow_matching_loss(zero_field, inputs, noise=noise, t=torch.full((1, 1, 2), 0.5)).tolist() == [5.0]


def test_deviation_carries_each_timesteps_own_weight():
    inputs = inputs_of([[3.0, 1.0], [5.0, 5.0]], [True, True])
    noise = torch.tensor([[[1.0, 1.0], [5.0, 1.0]]])
    # mean squares 2 and 8; w(0.8) = 4, w(0.5) = 1
    per_step = layer_deviations(zero_field, inputs, [0.8, 0.5], noise=noise)
    torch.testing.assert_close(per_step[:, 0, 0], torch.tensor([[8.0, 32.0], [2.0, 8.0]]))
    torch.testing.assert_close(
        velocity_deviation(zero_field, inputs, [0.8, 0.5], noise=noise), torch.tensor([[5.0, 20.0]])
    )


def test_perfect_field_has_no_deviation():
    inputs = inputs_of([[3.0, 1.0]], [True])
    noise = torch.tensor([[[1.0, 2.0]]])

    def perfect(x_t, t, cond, layer, image=None):
        return cond - noise

    assert velocity_deviation(perfect, inputs, [0.8], noise=noise).tolist() == [[0.0]]


def test_only_kept_tokens_reach_the_field():
    seen: list[int] = []

    def counting(x_t, t, cond, layer, image=None):
        seen.append(x_t.shape[-2])
        return torch.zeros_like(x_t)

    inputs = inputs_of([[1.0, 1.0]] * 5, [True, False, True, False, False])
    scores = velocity_deviation(counting, inputs, [0.8])
    assert seen == [2]
    assert (scores[0, [1, 3, 4]] == 0).all()
    assert (scores[0, [0, 2]] > 0).all()


def test_generator_makes_losses_and_scores_reproducible():
    inputs = inputs_of([[3.0, 1.0], [5.0, 5.0]], [True, True])

    def draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (
            token_flow_losses(zero_field, inputs, noise_repeats=3, generator=generator),
            velocity_deviation(zero_field, inputs, [0.8], generator=generator),
        )

    state = torch.get_rng_state()
    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    assert first[0].shape == (3, 1, 2)
    assert torch.equal(state, torch.get_rng_state())  # the global random state is not touched


def test_times_are_logit_normal():
    times: list[torch.Tensor] = []

    def recording(x_t, t, cond, layer, image=None):
        times.append(t)
        return torch.zeros_like(x_t)

    inputs = inputs_of([[0.0, 0.0]] * 4, [True] * 4)
    token_flow_losses(recording, inputs, noise_repeats=5000, generator=torch.Generator().manual_seed(0))
    logits = torch.logit(times[0])
    assert abs(logits.mean()) < 0.03 and abs(logits.std() - 1) < 0.03  # 20,000 draws: standard error 0.007


def test_no_kept_token_gives_zero_and_not_nan():
    inputs = inputs_of([[1.0, 1.0]], [False])
    assert velocity_deviation(zero_field, inputs, [0.8]).tolist() == [[0.0]]
    assert flow_matching_loss(zero_field, inputs).tolist() == [0.0]


@pytest.mark.parametrize("timesteps", [[], [1.0], [-0.1]])
def test_timesteps_outside_the_path_are_refused(timesteps):
    with pytest.raises(ValueError, match="timesteps"):
        velocity_deviation(zero_field, inputs_of([[1.0, 1.0]], [True]), timesteps)


def test_scores_do_not_depend_on_how_many_tokens_are_scored_together():
    hidden = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    inputs = FlowInputs(hidden, hidden.roll(1, 2), mask, torch.tensor([0.25, 0.5]))
    noise = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1))
    mixing = lambda x_t, t, cond, layer, image: (x_t * cond + t) * layer.unsqueeze(-1)  # noqa: E731
    whole = layer_deviations(mixing, inputs, [0.8, 0.5], noise=noise)
    for size in (1, 2, 4, 9, 100):
        torch.testing.assert_close(
            layer_deviations(mixing, inputs, [0.8, 0.5], noise=noise, tokens_at_once=size), whole
        )
    assert (whole[:, :, ~mask] == 0).all() and (whole[:, :, mask] > 0).all()
