"""Fitting: what counts in the loss, exact resume, the held-out report."""

import math

import pytest
import torch
from torch import nn

from rlfr_vlm.data.encode import encode_examples
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.flow import FlowSpec, load_field
from rlfr_vlm.flow.fit import FitConfig, flow_inputs_of, held_out_metrics, make_fit_trainer, measure_statistics
from rlfr_vlm.trainer.callbacks import quiet


@pytest.fixture(scope="module")
def digits():
    return load_rows("digits", limit=40)


@pytest.fixture
def fit(make_policy, processor, digits, tmp_path):
    def build(folder: str = "fit", spec_changes: dict | None = None, **changes):
        defaults = {
            "output_dir": str(tmp_path / folder), "max_steps": 4, "per_device_train_batch_size": 8, "use_cpu": True,
            "learning_rate": 3e-3, "report_to": [], "save_strategy": "no", "eval_fraction": 0.2, "logging_steps": 1,
            "lr_scheduler_type": "constant", "warmup_steps": 0,
        }  # fmt: skip
        policy = make_policy()
        spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5), **(spec_changes or {}))
        trainer = make_fit_trainer(policy, processor, spec, FitConfig(**(defaults | changes)), digits, [])
        quiet(trainer)
        return trainer

    return build


def test_defaults_are_the_papers(tmp_path):
    config = FitConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    assert (config.learning_rate, config.weight_decay, config.num_train_epochs) == (1e-4, 0.01, 2.0)
    assert (config.lr_scheduler_type, config.warmup_steps, config.flow_noise_repeats) == ("cosine", 0.1, 4)


def test_policy_is_frozen_and_the_field_learns(fit):
    trainer = fit(max_steps=30)
    before = {name: p.clone() for name, p in trainer.policy.named_parameters()}
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_ratio"] < 0.9
    assert all(torch.equal(before[name], p) for name, p in trainer.policy.named_parameters())
    assert trainer.spec.final_loss == metrics["eval_loss"]


def test_only_response_tokens_with_a_partner_count(make_policy, processor, digits):
    policy = make_policy()
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25,))
    batch = encode_examples(processor, [digits[i] for i in range(4)])
    inputs = flow_inputs_of(policy, batch, spec)
    assert inputs.mask.sum() == batch.completion_mask.sum() - 4  # token_pre: each row's last token has no partner


def test_resume_is_exact(fit, tmp_path):
    whole = fit("whole", max_steps=4)
    whole.train()
    first = fit("parts", max_steps=2, save_strategy="steps", save_steps=2)
    first.train()
    second = fit("parts", max_steps=4, save_strategy="steps", save_steps=2)
    second.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert load_field(tmp_path / "parts" / "checkpoint-4" / "flow")[1].steps == 4


def test_gradient_accumulation_is_one_larger_batch_in_expectation(fit):
    """Two micro-batches of one update: the loss logged is their mean, and one optimiser step is made."""
    trainer = fit(max_steps=2, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    trainer.train()
    assert trainer.state.global_step == 2
    assert all(0 < h["loss"] < 10 for h in trainer.state.log_history if "loss" in h)


def test_image_context_reaches_the_field(fit):
    trainer = fit(spec_changes={"image_context": True})
    trainer.train()
    assert trainer.model.image_embed.weight.abs().max() > 0  # it started at zero


def test_statistics_are_those_of_the_response_latents(make_policy, processor, digits):
    policy = make_policy()
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5))
    batches = [encode_examples(processor, [digits[i]]) for i in range(3)]
    mean, std = measure_statistics(policy, batches, spec)
    values = torch.cat([flow_inputs_of(policy, batch, spec).packed()[0] for batch in batches], dim=1).flatten(1)
    torch.testing.assert_close(mean.float(), values.mean(dim=1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(std.float(), values.std(dim=1, unbiased=False), atol=1e-5, rtol=1e-4)


def test_normalised_field_stores_its_statistics(fit, tmp_path):
    trainer = fit(flow_normalise=True)
    trainer.train()
    trainer.save_model(trainer.args.output_dir)
    _, spec = load_field(tmp_path / "fit" / "flow")
    assert len(spec.latent_mean) == len(spec.latent_std) == 2
    normalised = trainer.spec.inputs(torch.full((2, 1, 2, 32), spec.latent_mean[0]), torch.ones(1, 2), 2).target
    assert normalised[0].abs().max() < 1e-6


def test_rows_that_are_too_long_are_left_out_and_counted(fit):
    trainer = fit(max_length=5)
    assert trainer._collate([trainer.train_dataset[0]])["batch"] is None
    assert trainer.too_long == 1
    loss = trainer.compute_loss(trainer.model, {"batch": None})
    loss.backward()  # a zero that touches every weight
    assert loss.item() == 0


def test_held_out_report_by_hand():
    sums = torch.zeros(3, 2, 5, dtype=torch.float64)
    sums[0, 0, 0], sums[1, 0, 0], sums[2, 0, 0] = 2, 1.0, 4.0  # layer 9: two tokens in the first bucket
    sums[0, 1, 4], sums[1, 1, 4], sums[2, 1, 4] = 2, 3.0, 4.0  # layer 18: two tokens in the last
    metrics = held_out_metrics(sums, (9, 18))
    assert metrics["eval_loss"] == 1.0 and metrics["eval_zero_predictor_loss"] == 2.0 and metrics["eval_ratio"] == 0.5
    assert metrics["eval_loss_layer_9"] == 0.5 and metrics["eval_loss_layer_18"] == 1.5
    assert metrics["eval_loss_t_0.0_0.2"] == 0.5 and metrics["eval_loss_t_0.8_1.0"] == 1.5
    assert math.isnan(metrics["eval_loss_t_0.4_0.6"])


def test_held_out_loss_is_repeatable_and_matches_the_zero_predictor_before_training(fit):
    trainer = fit()
    first, again = trainer.evaluate(), trainer.evaluate()
    assert first == again
    assert first["eval_loss"] == pytest.approx(first["eval_zero_predictor_loss"])  # an untrained field predicts 0
    for parameter in trainer.model.parameters():
        nn.init.normal_(parameter, std=0.1)
    assert trainer.evaluate()["eval_loss"] != pytest.approx(first["eval_loss"])
