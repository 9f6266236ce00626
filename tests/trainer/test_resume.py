"""Checkpoints load back into the policy, by transformers' published names."""

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.resume import load_policy_weights


def test_published_names_are_translated_and_nothing_is_left_out(make_policy, tmp_path):
    saved, other = make_policy(seed=1), make_policy(seed=2)
    saved.save_pretrained(tmp_path)
    load_policy_weights(other, tmp_path)
    for name, weight in saved.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_checkpoint_of_another_policy_is_refused(make_policy, tmp_path):
    make_policy(hidden_size=64).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not hold this policy's weights"):
        load_policy_weights(make_policy(), tmp_path)
    with pytest.raises(UserError, match="does not hold"):
        load_policy_weights(make_policy(), tmp_path / "nothing")
