"""Rewards and gradients that are not finite stop the run with one message, and change no weight."""

import math

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.finite import LARGEST_REWARD, refuse_large_rewards
from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(model, weights):
    return all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


def spoil_gradient_at(trainer, update, value):
    """Put `value` into a gradient of the given update, counted from 1."""
    real = trainer.training_step

    def step(model, *args, **kwargs):
        loss = real(model, *args, **kwargs)
        if trainer.state.global_step == update - 1:
            parameter = next(p for p in model.parameters() if p.grad is not None)
            parameter.grad.view(-1)[0] = value
        return loss

    trainer.training_step = step


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0])
def test_policy_stops_before_the_update_and_names_the_checkpoint(make_policy, make_trainer, value, max_grad_norm):
    saving = {"save_strategy": "steps", "save_steps": 1, "steps_per_generation": 1}
    trainer = make_trainer(make_policy(), max_steps=3, max_grad_norm=max_grad_norm, **saving)
    kept = {}
    trainer.add_callback(KeepAfter(1, lambda: kept.update(weights_of(trainer.model))))
    spoil_gradient_at(trainer, 2, value)
    with pytest.raises(UserError, match=rf"gradient of update 2 is not finite \(its norm is {value}\)") as error:
        trainer.train()
    assert "Lower learning_rate (it is 0.001)" in str(error.value) and "resume from checkpoint-1" in str(error.value)
    assert kept and same(trainer.model, kept)  # neither NaN nor the other gradients of that update


def KeepAfter(step, keep):
    from transformers import TrainerCallback

    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                keep()

    return Keep()


def test_fitting_stops_before_the_update(make_policy, processor, digits, tmp_path):
    args = FlowFitConfig(str(tmp_path / "fit"), max_steps=3, per_device_train_batch_size=8, use_cpu=True, report_to=[],
                         save_strategy="no", flow_depth=1)  # fmt: skip
    trainer = FlowFitTrainer(make_policy(), args, digits, processing_class=processor)
    before = weights_of(trainer.model)
    spoil_gradient_at(trainer, 1, math.nan)
    with pytest.raises(UserError, match=r"gradient of update 1 .* start again \(there is no checkpoint yet\)"):
        trainer.train()
    assert same(trainer.model, before)


def test_field_stops_before_an_update_that_is_not_finite(make_policy, make_trainer):
    """A flow learning rate of 10 made the field NaN, and training went on without flow rewards."""
    trainer = make_trainer(make_policy(), flow="new", flow_learning_rate=10.0, max_steps=3, reward=always_right)
    flow, before = trainer.flow, weights_of(trainer.flow.field)
    real = flow.accumulate

    def accumulate(*args):
        real(*args)
        next(flow.field.parameters()).grad.view(-1)[0] = math.nan

    flow.accumulate = accumulate
    with pytest.raises(
        UserError, match=r"gradient of the flow field is not finite .* flow_learning_rate \(it is 10\)"
    ):
        trainer.train()
    assert same(flow.field, before)


def always_right(completions, **kwargs):
    return [1.0] * len(completions)


def test_learning_rate_that_breaks_the_field_stops_the_run(make_policy, make_trainer):
    """Not by hand: the field's own updates leave the finite numbers within a few steps."""
    trainer = make_trainer(make_policy(), flow="new", flow_learning_rate=1e18, max_steps=20, reward=always_right)
    with pytest.raises(UserError, match="gradient of the flow field is not finite"):
        trainer.train()


def test_rewards_whose_spread_vanishes_in_float32_are_refused(make_policy, make_trainer):
    """Beside 1e30, the rewards 0 and 1e20 got the same advantage; squared, it leaves float32 altogether."""
    huge = torch.tensor([1e30, 0.0, 1e20])
    advantages = huge - huge.mean()
    assert advantages[1] == advantages[2] and torch.tensor(1e30).square().isinf()
    assert torch.tensor(LARGEST_REWARD).square().isfinite()

    def rewards(completions, **kwargs):
        return [1e30] + [0.0] * (len(completions) - 1)

    with pytest.raises(UserError, match=r"The reward rewards returned 1e\+30\. Rewards above 1e\+15 in size"):
        make_trainer(make_policy(), reward=rewards).train()


def test_undecided_and_ordinary_rewards_pass():
    refuse_large_rewards(torch.tensor([[math.nan, 1.0], [-1e6, 0.0]]), ["a", "b"])
    with pytest.raises(UserError, match="The reward b returned -inf"):
        refuse_large_rewards(torch.tensor([[math.nan, 1.0], [1.0, -math.inf]]), ["a", "b"])
