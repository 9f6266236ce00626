"""Reward functions in TRL's calling convention."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.rewards import accuracy, resolve_rewards


def test_accuracy_has_no_half_points_and_leaves_undecided_open():
    completions = [
        [{"role": "assistant", "content": text}] for text in (r"\boxed{7}", r"\boxed{8}", "7", r"\boxed{7}")
    ]
    assert accuracy(completions=completions, answer=["7", "7", "7", ""], trainer_state=None) == [1.0, 0.0, 0.0, None]


def test_labels_that_are_not_text_do_not_shift_the_others():
    assert accuracy(completions=[r"\boxed{1}", r"\boxed{2}", r"\boxed{3}"], answer=["1", 2, 3.0]) == [1.0, 1.0, 1.0]


def test_equal_prompts_with_different_answers_are_told_apart():
    """The release looked rewards up by prompt text."""
    assert accuracy(completions=[r"\boxed{1}"] * 2, answer=["1", "2"]) == [1.0, 0.0]


def test_unknown_reward_offers_the_nearest():
    assert resolve_rewards(["accuracy"]) == [accuracy]
    with pytest.raises(UserError, match=r"Unknown reward 'acuracy'.* Did you mean 'accuracy'\?"):
        resolve_rewards(["acuracy"])
    with pytest.raises(UserError, match="rewards is empty"):
        resolve_rewards([])
