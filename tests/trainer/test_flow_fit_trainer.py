"""Fitting: what counts in the loss, exact resume, the held-out report."""

import json
import math

import pytest
import torch
from torch import nn

from rlfr_vlm.data.encode import encode_examples
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import flow_inputs_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import FlowSpec, load_field
from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer, held_out_metrics
from rlfr_vlm.trainer.records.default_records import drop_records


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
        args = FlowFitConfig(**(defaults | changes))
        trainer = FlowFitTrainer(policy, args, digits, processing_class=processor, spec=spec)
        drop_records(trainer)
        return trainer

    return build


def test_defaults_are_the_papers(tmp_path):
    config = FlowFitConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[])
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


def test_gradient_accumulation_equals_the_larger_batch(fit, monkeypatch):
    """Two micro-batches of four rows against one of eight, with the same noise for every token."""
    import rlfr_vlm.trainer.flow_fit_trainer as module

    original = module.token_flow_losses

    def without_randomness(field, inputs, **_):
        target, _, _ = inputs.packed()
        return original(field, inputs, noise=torch.zeros_like(target)[None], t=torch.full((1, *target.shape[:2]), 0.5))

    monkeypatch.setattr(module, "token_flow_losses", without_randomness)
    weights = []
    for rows, steps in ((8, 1), (4, 2)):
        trainer = fit(
            f"rows{rows}", {"context_mode": "identity"}, max_steps=1, per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps, optim="sgd", max_grad_norm=0, train_sampling_strategy="sequential",
        )  # fmt: skip
        lengths = [
            len(trainer.encoder.tokenizer(trainer.train_dataset[i]["response"])["input_ids"]) for i in range(32)
        ]
        most = max(set(lengths), key=lengths.count)
        trainer.train_dataset = trainer.train_dataset.select([i for i, n in enumerate(lengths) if n == most][:8])
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    before = [p.detach() for p in fit("untrained", {"context_mode": "identity"}).model.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, weights[0], strict=True))
    for one, two in zip(*weights, strict=True):
        torch.testing.assert_close(one, two)


def test_image_context_reaches_the_field(fit):
    trainer = fit(spec_changes={"image_context": True})
    trainer.train()
    assert trainer.model.image_embed.weight.abs().max() > 0  # it started at zero


def test_normalised_latents_have_mean_zero_and_deviation_one_and_the_field_stores_how(fit, tmp_path):
    trainer = fit(flow_normalise=True)
    trainer.train()
    trainer.save_model(trainer.args.output_dir)
    _, spec = load_field(tmp_path / "fit" / "flow")
    assert len(spec.latent_mean) == len(spec.latent_std) == 2
    batch = encode_examples(trainer.encoder, [trainer.train_dataset[i] for i in range(32)])
    values = flow_inputs_of(trainer.policy, batch, spec).packed()[0].flatten(1)
    torch.testing.assert_close(values.mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(dim=1, unbiased=False), torch.ones(2), atol=1e-3, rtol=0)


def test_rows_that_are_too_long_are_left_out_and_counted(fit):
    trainer = fit(max_length=5, max_steps=2)
    trainer.train()
    assert trainer.left_out_rows() == 16  # two batches of eight
    loss = trainer.compute_loss(trainer.model, {"batch": None, "labels": None, "left_out": 0})
    loss.backward()  # a zero that every weight takes part in
    assert loss.item() == 0
    assert all(p.grad is not None and (p.grad == 0).all() for p in trainer.model.parameters())


def test_only_the_long_rows_of_a_batch_are_left_out(fit):
    trainer = fit()
    rows = [dict(trainer.train_dataset[i]) for i in range(3)]
    rows[1]["response"] = "7 " * 60
    trainer.args.max_length = 60
    found = trainer._collate(rows)
    assert found["left_out"] == 1
    assert found["batch"].input_ids.shape[0] == 2


def test_field_of_another_kind_is_not_continued(fit, tmp_path):
    first = fit(max_steps=2, save_strategy="steps", save_steps=2)
    first.train()
    other = fit(spec_changes={"context_mode": "token_post"}, max_steps=4)
    with pytest.raises(UserError, match="context_mode: here token_post, checkpoint token_pre"):
        other.train(resume_from_checkpoint=str(tmp_path / "fit" / "checkpoint-2"))


@pytest.mark.parametrize("name", ["flow_noise_repeats", "flow_depth", "max_length"])
def test_sizes_below_one_are_refused(tmp_path, name):
    with pytest.raises(UserError, match=f"{name} is 0; it must be at least 1"):
        FlowFitConfig(output_dir=str(tmp_path), use_cpu=True, **{name: 0})


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


def rows_with_verdicts(verdicts, tmp_path):
    from rlfr_vlm.data.digits import digit_rows

    rows = [{k: row[k] for k in ("prompt", "answer", "response")} for row in digit_rows("train", len(verdicts), 0)]
    lines = [json.dumps(row | {"verdict": verdict}) for row, verdict in zip(rows, verdicts, strict=True)]
    (tmp_path / "sampled.jsonl").write_text("\n".join(lines))
    return load_rows(str(tmp_path / "sampled.jsonl"), columns=("prompt", "response"))


VERDICTS = ["right", "wrong", "undecided", "right", "wrong"] * 8


@pytest.fixture
def fit_text(make_text_policy, text_tokenizer, tmp_path):
    def build(dataset, **changes):
        defaults = {
            "output_dir": str(tmp_path / "fit"), "max_steps": 12, "per_device_train_batch_size": 8, "use_cpu": True,
            "learning_rate": 1e-2, "report_to": [], "save_strategy": "no", "eval_fraction": 0.2, "flow_depth": 1,
            "lr_scheduler_type": "constant", "warmup_steps": 0, "flow_layers": [0.5, 1.0],
        }  # fmt: skip
        args = FlowFitConfig(**(defaults | changes))
        trainer = FlowFitTrainer(make_text_policy(), args, dataset, processing_class=text_tokenizer)
        drop_records(trainer)
        return trainer

    return build


@pytest.mark.parametrize(("accept", "rows"), [("right", 16), ("wrong", 16), ("all", 40)])
def test_rows_are_accepted_by_their_verdict(fit_text, tmp_path, accept, rows):
    trainer = fit_text(rows_with_verdicts(VERDICTS, tmp_path), flow_reference="own", flow_accept=accept)
    datasets = (trainer.train_dataset, trainer.eval_dataset)
    assert sum(map(len, datasets)) == rows and trainer.spec.reference == "own"
    if accept != "all":
        assert {row["verdict"] for dataset in datasets for row in dataset} == {accept}


def test_a_contrast_field_learns_both_classes_and_is_saved(fit_text, tmp_path):
    trainer = fit_text(rows_with_verdicts(VERDICTS, tmp_path), flow_reference="contrast", flow_latents="sphere")
    assert len(trainer.train_dataset) + len(trainer.eval_dataset) == 32  # undecided rows are left out
    batch = trainer._collate([trainer.train_dataset[index] for index in range(4)])
    verdicts = [trainer.train_dataset[index]["verdict"] for index in range(4)]
    assert batch["labels"].tolist() == [int(verdict == "right") for verdict in verdicts]
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_loss"])
    trainer.save_model(str(tmp_path / "field"))
    field, spec = load_field(tmp_path / "field")
    assert (spec.reference, spec.latents) == ("contrast", "sphere")
    assert field.class_embed.weight.abs().sum(dim=1).min() > 0  # began at zero


@pytest.mark.parametrize(
    ("verdicts", "settings", "message"),
    [
        (["wrong"] * 8, {"flow_accept": "right"}, "flow_accept right needs right responses, and none of the 8 rows"),
        (["right"] * 8, {"flow_reference": "contrast"}, "flow_reference contrast needs wrong responses"),
        (["yes"] * 8, {"flow_accept": "right"}, "verdict has the value 'yes'; it must be right, wrong or undecided"),
    ],
)
def test_verdicts_that_cannot_be_used_are_named(fit_text, tmp_path, verdicts, settings, message):
    with pytest.raises(UserError, match=message):
        fit_text(rows_with_verdicts(verdicts, tmp_path), **settings)


def test_rows_without_verdicts_are_named(fit, digits):
    with pytest.raises(
        UserError,
        match=r"needs the column verdict, which `rlfr sample` writes. The data set has no column 'verdict'; it has",
    ):
        fit(flow_accept="right")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow_reference": "experts"}, "flow_reference is 'experts'; choose one of .* Did you mean 'expert'"),
        ({"flow_accept": "rigt"}, "flow_accept is 'rigt'"),
        ({"flow_latents": "ball"}, "flow_latents is 'ball'; choose one of raw, sphere, minus_prompt"),
        ({"flow_reference": "contrast", "flow_accept": "right"}, "flow_accept is right, but flow_reference contrast"),
    ],
)
def test_fit_settings_that_cannot_be_are_named(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        FlowFitConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[], **settings)
