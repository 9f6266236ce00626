"""Accuracy with undecided responses, sampling of responses, and deviations of responses from a field."""

import dataclasses

import pytest
import torch
from torch import nn

from rlfr_vlm.correctness_auc import correctness_auc
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import ResponseDeviation, Scoring, response_deviations, score_responses
from rlfr_vlm.evaluate import Accuracy, Response, respond
from rlfr_vlm.flow import FlowSpec, build_field


def test_accuracy_keeps_undecided_apart():
    responses = [Response([1], "", score) for score in (1.0, 1.0, 0.0, None)]
    accuracy = Accuracy.of(responses)
    assert (accuracy.right, accuracy.wrong, accuracy.undecided, accuracy.n) == (2, 1, 1, 3)
    assert accuracy.value == pytest.approx(2 / 3)
    assert Accuracy(0, 0, 5).to_dict() == {"acc": None, "n": 0, "ci95": [0.0, 1.0], "undecided": 5}


def test_responses_are_repeatable_end_at_the_end_token_and_have_no_vision_tokens(make_policy, processor):
    from rlfr_vlm.models.vision import vision_token_ids

    policy, rows = make_policy(), load_rows("digits", limit=12)

    def run(seed: int, sampled: bool = True) -> list[list[int]]:
        answers = respond(
            policy,
            processor,
            rows,
            lambda completions, **_: [0.0] * len(completions),
            sampled=sampled,
            seed=seed,
            batch_size=5,
            max_new_tokens=40,
        )
        return [answer.ids for answer in answers]

    state = torch.get_rng_state()
    first = run(1)
    assert torch.equal(state, torch.get_rng_state())
    assert first == run(1) != run(2)
    assert run(1, sampled=False) == run(2, sampled=False)
    end = processor.tokenizer.eos_token_id
    banned = set(vision_token_ids(policy, processor))
    for ids in first:
        assert end not in ids[:-1] and 0 < len(ids) <= 40
        assert not banned & set(ids)


def test_deviation_of_a_response_does_not_depend_on_its_neighbours(make_policy, processor):
    policy, rows = make_policy(), load_rows("digits", limit=3)
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5))
    field = build_field(spec)
    nn.init.constant_(field.final_layer.linear.bias, 0.1)
    end = processor.tokenizer.eos_token_id
    responses = [Response([20, 21, 22, end], "", 1.0), Response([30, end], "", 0.0), Response([end], "", 0.0)]
    deviations = response_deviations(policy, processor, rows, responses, field, spec)
    assert [d.mask.sum().item() for d in deviations] == [3, 1, 0]  # token_pre: the last token has no partner
    assert all((d.scores[~d.mask] == 0).all() and d.scores.isfinite().all() for d in deviations)
    assert deviations[2].mean == deviations[2].max == 0.0


def test_fields_that_need_the_same_latents_share_a_forward_pass(make_policy, processor):
    """Three fields, two of them at the same layers: two passes, and what each gives alone, bit for bit."""
    policy, rows = make_policy(), load_rows("digits", limit=3)
    config = policy.config.get_text_config()
    specs = [FlowSpec.for_policy(config, "tiny", 1, layers) for layers in ((0.25, 0.5), (0.25, 0.5), (0.75,))]
    specs[1] = dataclasses.replace(specs[1], latents="sphere")
    scorings = [Scoring(build_field(spec), spec, seed=number) for number, spec in enumerate(specs)]
    for scoring in scorings:
        nn.init.normal_(scoring.field.final_layer.linear.weight)
    responses = [Response([20, 21, 22], "", 1.0), Response([30, 31], "", 0.0), Response([40, 41], "", 0.0)]
    passes = []
    policy.model.language_model.layers[0].register_forward_hook(lambda *_: passes.append(1))
    together = score_responses(policy, processor, rows, responses, scorings)
    assert len(passes) == 2
    for scoring, scored in zip(scorings, together, strict=True):
        [alone] = score_responses(policy, processor, rows, responses, [scoring])
        for one, other in zip(scored, alone, strict=True):
            assert torch.equal(one.deviations, other.deviations) and one.deviations.any()


def test_auc_of_correctness_by_hand():
    def deviation(*values: float) -> ResponseDeviation:
        return ResponseDeviation(torch.tensor([[values]]), torch.ones(len(values), dtype=torch.bool))

    deviations = [deviation(1.0, 5.0), deviation(2.0, 2.0), deviation(4.0, 4.0), deviation(9.0)]
    responses = [Response([], "", score) for score in (1.0, 0.0, 0.0, None)]
    table = correctness_auc(deviations, responses)
    # means: right 3; wrong 2, 4 -> 1 of 2 pairs. maxima: right 5; wrong 2, 4 -> 0 of 2 pairs.
    assert table["mean"]["auc"] == 0.5 and table["max"]["auc"] == 0.0
    assert (table["mean"]["n_wrong"], table["mean"]["n_right"]) == (2, 1)
    assert correctness_auc(deviations[:1], responses[:1])["mean"]["auc"] is None
    # prompts: the right response and the wrong one of mean 2 belong to one, the wrong one of mean 4 to another
    within = correctness_auc(deviations, responses, [0, 0, 1, 1])["mean"]["within_groups"]
    assert within == {"auc": 0.0, "ci95": [0.0, 1.0], "groups": 1, "pairs": 1}
