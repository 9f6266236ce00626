"""The field's own update: what is accumulated, and that splitting a batch does not change it."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import FlowSpec, build_field, token_flow_losses
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.models.latents import Latents
from rlfr_vlm.trainer.signals.flow import OnlineFlow

SPEC = FlowSpec(8, 1, 4, (0.25, 0.5), (1, 2), context_mode="identity")


def new_flow(seed: int = 0, **options) -> OnlineFlow:
    torch.manual_seed(1)
    field = build_field(SPEC)
    for parameter in field.parameters():
        nn.init.normal_(parameter, std=0.3)
    return OnlineFlow(field, SPEC, FlowOptions(**options), Accelerator(cpu=True), seed)


def batch(rows: int = 4, tokens: int = 3) -> tuple[Latents, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(2, rows, tokens, 8, generator=generator)
    weights = torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])[:rows]
    return Latents(hidden), torch.ones(rows, tokens), weights


def gradients(flow: OnlineFlow) -> list[torch.Tensor]:
    return [p.grad.clone() for p in flow.field.parameters() if p.grad is not None]


def test_accumulated_gradient_is_that_of_the_weighted_loss_sum():
    flow, reference = new_flow(), new_flow()
    latents, valid, weights = batch()
    flow.accumulate(latents, valid, weights)
    inputs = SPEC.inputs(latents.hidden, valid, 3)
    inputs.mask = weights > 0
    losses = token_flow_losses(reference.field, inputs, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([1.0, 1.0, 0.5, 0.5, 0.5, 1.0])  # row-major order of the kept tokens
    (losses.mean(dim=(0, 1)) * kept).sum().backward()
    for ours, theirs in zip(gradients(flow), gradients(reference), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert flow._weight_sum.item() == 4.5


def test_step_divides_by_the_total_weight_of_all_micro_batches(monkeypatch):
    flow = new_flow(flow_max_grad_norm=1e9)
    latents, valid, weights = batch()
    for rows in (slice(0, 1), slice(1, 4)):
        flow.accumulate(Latents(latents.hidden[:, rows]), valid[rows], weights[rows])
    summed, loss_sum = gradients(flow), flow._loss_sum.item()
    stepped: list[torch.Tensor] = []
    monkeypatch.setattr(flow.optimizer, "step", lambda: stepped.extend(gradients(flow)))
    assert flow.step() == pytest.approx(loss_sum / 4.5)
    for ours, total in zip(stepped, summed, strict=True):
        torch.testing.assert_close(ours, total / 4.5)
    assert all(p.grad is None for p in flow.field.parameters())


def test_no_weight_means_no_step_not_even_weight_decay():
    flow = new_flow(flow_weight_decay=0.5)
    before = [p.detach().clone() for p in flow.field.parameters()]
    latents, valid, weights = batch()
    flow.accumulate(latents, valid, torch.zeros_like(weights))
    assert flow.step() is None
    assert all(torch.equal(a, b) for a, b in zip(before, flow.field.parameters(), strict=True))


def test_updates_lower_the_loss_on_accepted_latents():
    flow = new_flow(flow_learning_rate=3e-3, flow_noise_repeats=8)
    latents, valid, weights = batch()
    losses = []
    for _ in range(60):
        flow.accumulate(latents, valid, weights)
        losses.append(flow.step())
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_latents_never_get_gradients():
    flow = new_flow()
    latents, valid, weights = batch()
    latents.hidden.requires_grad_(True)  # as if they had come out of the policy's graph
    flow.accumulate(latents, valid, weights)
    assert gradients(flow)
    assert latents.hidden.grad is None


def test_state_round_trip_continues_exactly(tmp_path):
    first, second = new_flow(), new_flow(seed=9)
    latents, valid, weights = batch()
    first.accumulate(latents, valid, weights)
    first.step()
    first.save(tmp_path)
    second.load(tmp_path)
    for flow in (first, second):
        flow.accumulate(latents, valid, weights)
        flow.step()
    assert all(torch.equal(a, b) for a, b in zip(first.field.parameters(), second.field.parameters(), strict=True))
    assert torch.equal(first.score(latents, valid, 3)[0], second.score(latents, valid, 3)[0])


def test_missing_state_is_named(tmp_path):
    flow = new_flow()
    flow.save(tmp_path)
    (tmp_path / "flow_generator_rank0.pt").unlink()
    with pytest.raises(UserError, match=r"flow_generator_rank0\.pt"):
        flow.load(tmp_path)


def test_state_of_another_field_is_refused_naming_both_sides(tmp_path):
    new_flow().save(tmp_path)
    other = FlowSpec(8, 2, 4, (0.25, 0.5), (1, 2), context_mode="identity")
    flow = OnlineFlow(build_field(other), other, FlowOptions(), Accelerator(cpu=True), 0)
    with pytest.raises(UserError, match="depth: here 2, checkpoint 1"):
        flow.load(tmp_path)


def test_processes_share_the_noise_of_a_group_that_they_split():
    """Rows 0 to 3 and 4 to 7 of groups of six: group 0 is on both processes, group 1 on the second."""

    def noise(rank: int) -> torch.Tensor:
        accelerator = SimpleNamespace(device=torch.device("cpu"), process_index=rank, num_processes=2)
        flow = OnlineFlow(build_field(SPEC), SPEC, FlowOptions(), accelerator, 0)
        return flow.draw_noise(4, 6).of_rows(0, 4)

    first, second = noise(0), noise(1)
    assert torch.equal(first[:, :, 0], first[:, :, 3]) and torch.equal(first[:, :, 0], second[:, :, 1])
    assert torch.equal(second[:, :, 2], second[:, :, 3]) and not torch.equal(second[:, :, 1], second[:, :, 2])


def test_independent_noise_leaves_the_runs_noise_as_it_is():
    one, other = new_flow(), new_flow()
    other.draw_noise(4, 2, independent=True)
    assert torch.equal(one.draw_noise(4, 2).table, other.draw_noise(4, 2).table)


def test_blocks_that_the_field_was_not_fitted_on_are_named():
    with pytest.raises(UserError, match="flow_score_layers has block 7, but the field was fitted on the blocks 1, 2"):
        new_flow(flow_score_layers=[2, 7])
    assert new_flow(flow_score_layers=[2]).scored_layers == [1]


def test_each_process_draws_its_own_noise():
    def noise(rank: int) -> torch.Tensor:
        accelerator = SimpleNamespace(device=torch.device("cpu"), process_index=rank)
        flow = OnlineFlow(build_field(SPEC), SPEC, FlowOptions(), accelerator, 0)
        return torch.randn(3, generator=flow.generator)

    assert not torch.equal(noise(0), noise(1))


def test_chunks_change_the_gradient_by_rounding_only(monkeypatch):
    whole, parts = new_flow(), new_flow()
    steady = lambda shape, device, generator=None: torch.full(shape, 0.7)  # noqa: E731
    monkeypatch.setattr("rlfr_vlm.flow.path.standard_normal", steady)
    whole.accumulate(*batch())
    monkeypatch.setattr("rlfr_vlm.trainer.signals.flow.UPDATE_TOKENS", 2)
    parts.accumulate(*batch())
    for one, other in zip(gradients(whole), gradients(parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert any(gradient.abs().sum() > 0 for gradient in gradients(parts))
