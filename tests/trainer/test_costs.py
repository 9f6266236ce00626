"""What a step costs in counts that no machine can disturb: passes of the policy, of the field, tokens, bytes kept."""

import pytest

from rlfr_vlm.latents import find_language_tower
from rlfr_vlm.trainer.capture import UpdateCapture

BLOCKS = 4  # of the small policy; blocks 1 and 2 are hooked


class Counts:
    """Counts blocks of the policy outside of generation, and calls and tokens of the field."""

    def __init__(self, trainer):
        self.blocks = self.score_calls = self.update_calls = self.scored = self.updated = self.kept = 0
        self.inside = False
        for block in find_language_tower(trainer.model).layers:
            block.register_forward_hook(lambda *_: setattr(self, "blocks", self.blocks + self.inside))
        logps = trainer._get_per_token_logps_and_entropies

        def counted(*arguments, **settings):
            self.inside = True
            try:
                return logps(*arguments, **settings)
            finally:
                self.inside = False

        trainer._get_per_token_logps_and_entropies = counted
        if trainer.flow is not None:
            self._count_field(trainer)

    def _count_field(self, trainer):
        score, accumulate = trainer.flow.score, trainer.flow.accumulate
        field = trainer.flow.field

        def scoring(*arguments):
            calls = []
            hook = field.register_forward_hook(lambda _m, given, _o: calls.append(given[0].shape[-2]))
            result = score(*arguments)
            hook.remove()
            self.score_calls, self.scored = self.score_calls + len(calls), self.scored + sum(calls)
            return result

        def updating(latents, valid, weights):
            self.kept += latents.hidden.nbytes
            calls = []
            hook = field.register_forward_hook(lambda _m, given, _o: calls.append(given[0].shape[-2]))
            accumulate(latents, valid, weights)
            hook.remove()
            self.update_calls, self.updated = self.update_calls + len(calls), self.updated + sum(calls)

        trainer.flow.score, trainer.flow.accumulate = scoring, updating


def run(make_trainer, make_policy, **settings):
    """Train; returns the counts, and of each rollout the tokens that have a partner, and which rows are accepted."""
    trainer = make_trainer(make_policy(), **settings)
    counts, partners, accepted = Counts(trainer), [], []
    rollout = trainer._rollout

    def noted(*arguments, **more):
        output = rollout(*arguments, **more)
        mask = output["completion_mask"].sum(dim=1)
        partners.append((mask - 1).clamp(min=0))  # token_pre: the last token has no next one
        if "flow_weight" in output:
            accepted.append(output["flow_weight"] > 0)
        return output

    trainer._rollout = noted
    trainer.train()
    return counts, partners, accepted


@pytest.mark.parametrize(("updates", "rows"), [(1, 8), (2, 4)])
def test_policy_passes_of_a_rollout(make_trainer, make_policy, updates, rows):
    """One update a rollout: the loss alone, and for the flow one pass that ends at the deepest hooked block. Two: TRL
    computes old log-probs, and the flow takes its latents there for nothing."""
    settings = {"max_steps": updates, "steps_per_generation": updates, "per_device_train_batch_size": rows}
    plain, *_ = run(make_trainer, make_policy, **settings)
    flow, *_ = run(make_trainer, make_policy, flow="new", **settings)
    old_logps = 0 if updates == 1 else updates * BLOCKS  # TRL's chunks are as large as micro-batches
    assert plain.blocks == updates * BLOCKS + old_logps
    assert flow.blocks == plain.blocks + (2 if updates == 1 else 0)


def test_the_field_sees_response_tokens_only_and_accepted_rows_in_the_update(make_trainer, make_policy):
    counts, partners, accepted = run(
        make_trainer, make_policy, flow="new", max_steps=2, steps_per_generation=2, per_device_train_batch_size=4
    )
    assert counts.scored == sum(int(tokens.sum()) for tokens in partners)
    assert counts.score_calls == 2  # two chunks of rows, all layers in one call
    wanted = [tokens[rows] for tokens, rows in zip(partners, accepted, strict=True)]
    assert counts.updated == sum(int(tokens.sum()) for tokens in wanted) > 0
    assert counts.update_calls <= 2
    width = 8  # positions of a response
    assert (
        counts.kept == sum(int(rows.sum()) for rows in accepted) * 2 * width * 32 * 4
    )  # layers, positions, D, float32


def test_without_online_update_no_latents_are_kept(make_trainer, make_policy, monkeypatch):
    monkeypatch.setattr(UpdateCapture, "__init__", lambda *_: pytest.fail("latents were captured for an update"))
    counts, partners, _ = run(make_trainer, make_policy, flow="new", flow_update=False, max_steps=1)
    assert counts.update_calls == counts.kept == 0 and counts.scored == sum(int(tokens.sum()) for tokens in partners)
