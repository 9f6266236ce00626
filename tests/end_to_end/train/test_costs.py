"""What a step costs, in counts (see counting.py); with vLLM they are counted in tests/trainer/vllm/test_patches.py."""

import pytest

from rlfr_vlm.trainer import passes
from rlfr_vlm.trainer.passes import LossPass
from tests.trainer.counting import Counts

BLOCKS = 4  # of the small policy; blocks 1 and 2 are hooked


def run(make_trainer, make_policy, **settings):
    trainer = make_trainer(make_policy(), flow_retest_every=0, share_prefix="false", **settings)
    counts = Counts(trainer)
    trainer.train()
    return counts


@pytest.mark.parametrize(("updates", "rows"), [(1, 8), (2, 4)])
def test_policy_passes_of_a_rollout(make_trainer, make_policy, updates, rows):
    """One update a rollout: the loss alone, and for the flow one pass that ends at the deepest hooked block. Two: TRL
    computes old log-probs, and the flow takes its latents there for nothing."""
    settings = {"max_steps": updates, "steps_per_generation": updates, "per_device_train_batch_size": rows}
    plain = run(make_trainer, make_policy, **settings)
    flow = run(make_trainer, make_policy, flow="new", **settings)
    old_logps = 0 if updates == 1 else updates * BLOCKS  # TRL's chunks are as large as micro-batches
    assert plain.blocks == updates * BLOCKS + old_logps
    assert flow.blocks == plain.blocks + (2 if updates == 1 else 0)


def test_the_field_sees_response_tokens_only_and_accepted_rows_in_the_update(make_trainer, make_policy):
    counts = run(
        make_trainer, make_policy, flow="new", max_steps=2, steps_per_generation=2, per_device_train_batch_size=4
    )
    assert counts.scored == counts.partners
    assert counts.score_calls == 2  # two chunks of rows, all layers in one call
    assert counts.updated == counts.accepted_partners > 0
    assert counts.update_calls <= 2
    assert counts.kept == counts.accepted_positions * 2 * 32 * 4  # layers, D, float32


def test_without_online_update_no_latents_are_kept(make_trainer, make_policy, monkeypatch):
    monkeypatch.setattr(LossPass, "latents", lambda *_: pytest.fail("latents were captured for an update"))
    capture = passes.capture_for_field

    def refuse_rows(*args, rows=None, **kwargs):
        assert rows is None, "latents were captured for an update"
        return capture(*args, rows=rows, **kwargs)

    monkeypatch.setattr(passes, "capture_for_field", refuse_rows)
    counts = run(make_trainer, make_policy, flow="new", flow_update=False, max_steps=1)
    assert counts.update_calls == counts.kept == 0 and counts.scored == counts.partners > 0
