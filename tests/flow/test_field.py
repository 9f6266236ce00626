"""The velocity network against the released one, closed forms, and its promises."""

import pytest
import torch
from torch import Tensor, nn

from rlfr_vlm.flow import FlowInputs, FlowSpec, VelocityField, layer_deviations, linear_path, load_field

REFERENCE_SPEC = FlowSpec(hidden_size=32, depth=2, num_layers=4, layer_percentiles=(0.5,), layer_indices=(2,))


@pytest.fixture(scope="module")
def reference(shared):
    from safetensors.torch import load_file

    return load_file(shared / "reference" / "flow_reference.safetensors")


@pytest.fixture(scope="module")
def released_field(shared):
    return load_field(shared / "reference" / "flow_model.bin", REFERENCE_SPEC)[0].requires_grad_(False)


@pytest.mark.parametrize("case", ["fixed", "random"])
def test_velocities_and_deviations_agree_with_the_released_network(reference, released_field, case):
    t, layer = reference[f"t_{case}"], reference[f"layer_{case}"]
    x_t = linear_path(reference["target"], reference["noise"], t.unsqueeze(-1))
    velocity = released_field(x_t, t, reference["cond"], layer)
    deviation = (velocity - (reference["target"] - reference["noise"])).square().mean(dim=-1)
    torch.testing.assert_close(velocity, reference[f"velocity_{case}"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(deviation, reference[f"deviation_{case}"], rtol=1e-5, atol=1e-5)


def test_weighted_score_agrees_with_the_released_network(reference, released_field):
    # 12 tokens as one row; the release scored them at layer position 0.5 and t = 0.8, so w = 0.8 / 0.2 = 4.
    inputs = FlowInputs(
        reference["target"][None, None], reference["cond"][None, None], torch.ones(1, 12, dtype=torch.bool),
        torch.tensor([0.5]),
    )  # fmt: skip
    score = layer_deviations(released_field, inputs, [0.8], noise=reference["noise_class"][None])[0, 0, 0]
    torch.testing.assert_close(score, reference["score_class"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(score, 4 * reference["deviation_class"], rtol=1e-5, atol=1e-5)


def test_layer_given_once_or_per_token_is_the_same(released_field):
    x, cond = torch.randn(5, 32), torch.randn(5, 32)
    once = released_field(x, torch.tensor(0.3), cond, torch.tensor(0.5))
    per_token = released_field(x, torch.full((5,), 0.3), cond, torch.full((5,), 0.5))
    torch.testing.assert_close(once, per_token)


@pytest.mark.parametrize(("width", "depth"), [(2048, 4), (3584, 6)])
def test_parameter_count(width, depth):
    with torch.device("meta"):
        field = VelocityField(width, depth)
    expected = (5 * depth + 7) * width**2 + (6 * depth + 522) * width
    assert sum(p.numel() for p in field.parameters()) == expected
    # Published: 114M for Qwen2.5-VL-3B (D 2048, N 4), 477M for 7B (D 3584, N 6).
    assert round(expected / 1e6) == {2048: 114, 3584: 477}[width]


def test_untrained_field_predicts_zero_velocity():
    field = VelocityField(16, 2)
    assert field(torch.randn(3, 16), torch.rand(3), torch.randn(3, 16), torch.tensor(0.5)).abs().max() == 0


def test_constant_time_and_layer_are_embedded_once_per_call():
    field = VelocityField(16, 1)
    seen: list[torch.Size] = []
    for module in (field.time_embed.mlp, field.layer_embed.mlp):
        module.register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape))
    latents, layers = torch.randn(3, 2, 7, 16), torch.tensor([0.25, 0.5, 0.75])
    inputs = FlowInputs(latents, latents, torch.ones(2, 7, dtype=torch.bool), layers)
    layer_deviations(field, inputs, [0.8])
    assert sorted(shape.numel() // 256 for shape in seen) == [1, 3]  # one time, three layers, for 42 tokens


def test_image_context_starts_without_effect_and_then_has_one():
    torch.manual_seed(0)
    field = VelocityField(16, 1, image_context=True)
    _randomise(field)
    nn.init.zeros_(field.image_embed.weight)
    x, cond, image = torch.randn(4, 16), torch.randn(4, 16), torch.randn(4, 16)
    arguments = (x, torch.tensor(0.5), cond, torch.tensor(0.5))
    torch.testing.assert_close(field(*arguments, image), field(*arguments))
    nn.init.eye_(field.image_embed.weight)
    assert (field(*arguments, image) - field(*arguments)).abs().max() > 1e-3


def test_runs_under_autocast_with_float32_weights():
    field = VelocityField(16, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = field(torch.randn(2, 16), torch.tensor(0.5), torch.randn(2, 16), torch.tensor(0.5))
    assert out.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in field.parameters())


def _randomise(field: nn.Module) -> None:
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.2)


def test_recovers_a_known_affine_flow():
    """Data that equals its condition plus a constant: the best velocity given (x_t, cond) is known exactly.

    x_1 = c + b is determined by the condition, so u = x_1 - eps = (x_1 - x_t) / (1 - t), and the loss can go to 0.
    """
    from rlfr_vlm.flow import flow_matching_loss

    torch.manual_seed(0)
    width, offset = 32, 0.5
    field = VelocityField(width, 2)
    optimizer = torch.optim.AdamW(field.parameters(), lr=3e-3)

    def sample(n: int) -> FlowInputs:
        cond: Tensor = torch.randn(1, 1, n, width)
        return FlowInputs(cond + offset, cond, torch.ones(1, n, dtype=torch.bool), torch.tensor([0.5]))

    for _ in range(400):
        loss = flow_matching_loss(field, sample(256)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = sample(2048)
    zero_loss = 1 + 1 + offset**2  # E|c + b - eps|^2 per channel = Var c + Var eps + b^2
    # Knowing the condition but not x_t leaves Var eps = 1, that is 0.44; below that both are used.
    assert flow_matching_loss(field, held_out).item() < 0.3 * zero_loss
    noise, t = torch.randn(2048, width), torch.full((2048,), 0.5)
    x_1 = held_out.target[0, 0]
    x_t = linear_path(x_1, noise, t.unsqueeze(-1))
    with torch.no_grad():
        velocity = field(x_t, t, held_out.cond[0, 0], torch.tensor(0.5))
    analytic = (x_1 - x_t) / 0.5
    assert (velocity - analytic).square().mean() < 0.3 * analytic.square().mean()
