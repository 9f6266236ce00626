"""Responses of transformers: log-probs against closed forms and a teacher-forced pass, end tokens, seeds."""

import math

import pytest
import torch

from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.models.vision import vision_token_ids
from rlfr_vlm.sampling.engine import Sampling
from rlfr_vlm.sampling.hf import HfEngine, LogprobRecorder


@pytest.fixture(scope="module")
def rows():
    return [load_rows("digits", limit=3)[number] for number in (0, 0, 1, 2)]


def test_the_recorder_adds_the_log_probs_of_the_drawn_tokens():
    """Logits ln 1, ln 3 have the probabilities 1/4 and 3/4; ln 2, ln 2 one half each."""
    recorder = LogprobRecorder()
    logits = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).log()
    assert recorder(torch.tensor([[7], [7]]), logits) is logits  # 7: the end of the prompt
    recorder(torch.tensor([[7, 1], [7, 0]]), torch.tensor([[1.0, 1.0], [3.0, 1.0]]).log())
    recorder.drawn(torch.tensor([0, 0]))
    expected = torch.tensor([[3 / 4, 1 / 2], [1 / 2, 3 / 4]]).log()  # a row a response
    torch.testing.assert_close(torch.stack(recorder.steps, dim=1), expected)


def test_logp_of_a_policy_without_preferences(make_policy, processor, rows):
    """An LM head of zeros gives each token that is not banned the same chance, at any temperature."""
    policy = make_policy()
    policy.get_output_embeddings().weight.data.zero_()
    banned = len(vision_token_ids(policy, processor))
    samples = HfEngine(policy, processor, Sampling(temperature=0.5, top_k=20, max_new_tokens=5)).sample(rows, [1] * 4)
    choices = policy.config.get_text_config().vocab_size - banned
    assert banned == 5
    for sample in samples:
        assert sample.logp == pytest.approx(-len(sample.ids) * math.log(choices), rel=1e-5)
        assert not set(sample.ids) & set(vision_token_ids(policy, processor))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logp_is_that_of_a_teacher_forced_pass_at_temperature_1(make_policy, processor, rows, temperature):
    policy = make_policy()
    samples = HfEngine(policy, processor, Sampling(temperature, max_new_tokens=12)).sample(rows, [3] * 4)
    ids = [sample.ids for sample in samples]
    batch = append_responses(encode_prompts(processor, rows), ids, 0)
    with torch.no_grad():
        logps = policy(**batch.model_inputs()).logits.log_softmax(dim=-1)
    start = batch.input_ids.shape[1] - batch.completion_mask.shape[1]
    for row, sample in enumerate(samples):
        expected = sum(logps[row, start + place - 1, token] for place, token in enumerate(sample.ids))
        assert sample.logp == pytest.approx(expected.item(), abs=1e-3)


def test_equal_seeds_give_equal_responses_and_repeated_rows_other_ones(make_policy, processor, rows):
    engine = HfEngine(make_policy(), processor, Sampling(max_new_tokens=8))
    first, again, other = (engine.sample(rows, [seed] * 4) for seed in (1, 1, 2))
    assert first == again and first != other
    assert first[0].ids != first[1].ids


def favour(policy, token):
    """Let the policy always choose one token."""
    head = policy.get_output_embeddings()
    hidden = torch.zeros(head.weight.shape)
    policy.model.language_model.norm.weight.data.zero_()  # the head's input is 0, and its bias decides
    head.weight.data.copy_(hidden)
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
    head.bias.data[token] = 50.0


def test_responses_end_at_the_first_of_several_end_tokens(make_policy, processor, rows, monkeypatch):
    """Qwen's own settings name two; the tokenizer knows one of them."""
    import rlfr_vlm.sampling.hf as module

    monkeypatch.setattr(module, "ban_tokens", lambda policy, ids: None)  # it refuses a head with a bias
    policy, second = make_policy(), 60
    policy.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, second]
    favour(policy, second)
    engine = HfEngine(policy, processor, Sampling(max_new_tokens=4))
    assert [(sample.ids, sample.truncated) for sample in engine.sample(rows, [0] * 4)] == [([second], False)] * 4
    favour(policy, 61)
    assert [(sample.ids, sample.truncated) for sample in engine.sample(rows, [0] * 4)] == [([61] * 4, True)] * 4


def test_settings_of_generation_in_the_policys_folder_do_not_apply(make_policy, processor, rows):
    plain, set_up = make_policy(), make_policy()
    set_up.generation_config.update(repetition_penalty=5.0, top_k=1, temperature=0.1, min_p=0.9)
    sampling = Sampling(max_new_tokens=8)
    assert HfEngine(plain, processor, sampling).sample(rows, [5] * 4) == HfEngine(set_up, processor, sampling).sample(
        rows, [5] * 4
    )


def test_greedy_responses_do_not_depend_on_the_seed(make_policy, processor, rows):
    engine = HfEngine(make_policy(), processor, Sampling(temperature=0.0, max_new_tokens=8))
    assert engine.sample(rows, [1] * 4) == engine.sample(rows, [2] * 4)


def test_a_text_only_policy(make_text_policy, text_tokenizer):
    rows = [{"prompt": [{"role": "user", "content": "sum?"}], "images": []}] * 2
    samples = HfEngine(make_text_policy(), text_tokenizer, Sampling(max_new_tokens=4)).sample(rows, [0, 1])
    assert all(1 <= len(sample.ids) <= 4 and sample.logp < 0 for sample in samples)
