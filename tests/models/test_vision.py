"""The ban on vision tokens acts alike in sampling, log-probs and entropies, and leaves no trace in checkpoints."""

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.towers import find_vision_tower
from rlfr_vlm.models.vision import ban_tokens, freeze_vision_tower, vision_token_ids


def test_ids_are_those_the_vocabulary_has(make_policy, make_text_policy, processor):
    policy = make_policy()
    assert vision_token_ids(make_text_policy(), processor) == []
    names = processor.tokenizer.convert_ids_to_tokens(vision_token_ids(policy, processor))
    assert set(names) == {"<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"}


def test_log_probs_and_entropy_are_those_of_the_renormalised_distribution(make_policy, processor):
    from trl.trainer.utils import add_fused_lm_head

    policy = make_policy()
    banned = vision_token_ids(policy, processor)
    ids = processor.tokenizer("8 - 4 = 4", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = policy(input_ids=ids).logits[:, :-1]
        logits[..., banned] = -torch.inf
        expected = logits.log_softmax(dim=-1)
        probabilities = expected.exp()
        entropy = -(probabilities * expected.masked_fill(probabilities == 0, 0)).sum(dim=-1)
        ban_tokens(policy, banned)
        add_fused_lm_head(policy, outputs=("log_probs", "entropy"))
        output = policy(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, fused_lm_head=True)
        sampled = policy(input_ids=ids).logits[:, :-1].log_softmax(dim=-1)
    torch.testing.assert_close(output.log_probs, expected.gather(2, ids[:, 1:, None])[..., 0])
    torch.testing.assert_close(output.entropy, entropy)
    torch.testing.assert_close(sampled.exp(), probabilities)
    assert (sampled.exp()[..., banned] == 0).all()


def test_ban_twice_is_ban_once_and_checkpoints_do_not_know_it(make_policy, processor):
    policy = make_policy()
    names = set(policy.state_dict())
    parameters = sum(p.numel() for p in policy.parameters())
    for _ in range(2):
        ban_tokens(policy, vision_token_ids(policy, processor))
    assert set(policy.state_dict()) == names
    assert sum(p.numel() for p in policy.parameters()) == parameters


def test_text_policy_has_nothing_to_freeze(make_text_policy, make_policy):
    assert find_vision_tower(make_text_policy()) is None
    assert freeze_vision_tower(make_text_policy()) == 0
    policy = make_policy()
    count = sum(p.numel() for p in policy.model.visual.parameters())
    assert freeze_vision_tower(policy) == count > 0
    assert any(p.requires_grad for p in policy.model.language_model.parameters())


def test_a_ban_that_would_ban_nothing_is_refused(make_policy, processor, monkeypatch):
    """A vision-language policy whose vision tokens have other names."""
    tokenizer = processor.tokenizer
    words = {token: index for token, index in tokenizer.get_vocab().items() if not token.startswith("<|")}
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda self: words)
    with pytest.raises(UserError, match=r"none of Qwen2-VL and Qwen2\.5-VL's vision tokens"):
        vision_token_ids(make_policy(), processor)
