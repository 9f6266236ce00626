"""Visual dependency in the trainer: against a slow loop, without effect when its weights are 1, and refused."""

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import VisualOptions
from rlfr_vlm.trainer.signals.visual import VisualDependency, rows_with_images
from rlfr_vlm.trainer.trl_seams import LOGPROB_IMAGE_KEYS
from rlfr_vlm.visual_dependency import pivotal_tokens, token_dependency


def losses_of(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def watch(trainer):
    """Keep the batch of the rollout, the outcome advantages and the dependency of each token."""
    seen = {}
    shape_rollout, measure = trainer._shape, trainer.visual.dependency

    def noted_shape(rollout, batch, record):
        seen["outcome"] = batch["advantages"].clone()
        seen["batch"] = shape_rollout(rollout, batch, record)
        return seen["batch"]

    def noted_measure(policy, temperature):
        seen["dependency"] = measure(policy, temperature)
        seen["expected"] = slow_dependency(trainer, seen["inputs"], temperature)
        return seen["dependency"]

    run_blank = trainer._run_blank_pass

    def noted_blank(visual, batch):
        seen["inputs"] = dict(batch)
        run_blank(visual, batch)

    trainer._shape, trainer.visual.dependency, trainer._run_blank_pass = noted_shape, noted_measure, noted_blank
    return seen


def slow_dependency(trainer, batch, temperature):
    """Two whole forward passes of the policy, with logits of every position."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    images = {key: batch[key] for key in LOGPROB_IMAGE_KEYS if key in batch and key != "num_images"}
    number = batch["completion_ids"].shape[1]
    logits = []
    with torch.no_grad():
        for pixels in (images["pixel_values"], torch.zeros_like(images["pixel_values"])):
            output = trainer.model(input_ids=ids, attention_mask=mask, **{**images, "pixel_values": pixels})
            logits.append(output.logits[:, -number - 1 : -1] / temperature)
    return token_dependency(*logits)


@pytest.mark.parametrize(("share", "rounding"), [("false", 1e-7), ("true", 1e-6)])
@pytest.mark.parametrize("updates", [2, 1])
def test_dependency_is_that_of_two_whole_passes(make_trainer, make_policy, updates, share, rounding):
    """Two updates a rollout: beside TRL's old-log-prob pass. One: two passes of our own."""
    trainer = make_trainer(
        make_policy(),
        method="visual",
        max_steps=1,
        temperature=0.7,
        steps_per_generation=updates,
        per_device_train_batch_size=8 // updates,
        visual_min_scale=1.0,
        visual_share=0.5,
        share_prefix=share,
    )
    seen = watch(trainer)
    trainer.train()
    mask = seen["inputs"]["completion_mask"].bool()
    torch.testing.assert_close(seen["dependency"][mask], seen["expected"][mask], rtol=1e-3, atol=rounding)
    assert seen["dependency"][mask].max() > 0
    chosen = pivotal_tokens(seen["dependency"] * mask, mask, 0.5)
    torch.testing.assert_close(seen["batch"]["advantages"], seen["outcome"].unsqueeze(1) * chosen)
    assert "visual/dependency" in trainer.state.log_history[0]


def test_weights_of_one_are_trl_bit_for_bit(make_trainer, make_policy):
    plain = make_trainer(make_policy())
    plain.train()
    visual = make_trainer(make_policy(), method="visual", visual_share=1.0, visual_min_scale=1.0)
    visual.train()
    assert losses_of(visual) == losses_of(plain) and any(losses_of(plain))


def test_flow_rewards_and_visual_dependency_join(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", method="rlfr+visual", flow_threshold=0.2)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["visual/dependency"] > 0 and logged["flow/share_rewarded"] > 0


def test_rows_without_images_keep_all_their_tokens():
    pixels = {"pixel_values": torch.zeros(3)}
    assert rows_with_images({**pixels, "num_images": [1, 0, 2]}, 3).tolist() == [True, False, True]
    assert rows_with_images(pixels, 2).tolist() == [True, True]
    assert rows_with_images({}, 2).tolist() == [False, False]
    visual = VisualDependency(VisualOptions(visual_share=0.5))
    mask = torch.ones(2, 2)
    weights = visual.weights(torch.tensor([[0.1, 0.2]] * 2), mask, torch.tensor([True, False]), torch.ones(2))
    assert weights.tolist() == [[0, 1], [1, 1]]


def test_a_text_policy_is_refused(make_trainer, make_text_policy, text_tokenizer, text_digits):
    with pytest.raises(UserError, match=r"part visual, but the policy takes no images"):
        make_trainer(make_text_policy(), processing_class=text_tokenizer, dataset=text_digits, method="visual")
