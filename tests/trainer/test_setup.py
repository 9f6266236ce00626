"""Arguments of the trainer: which reward functions are adapted, and that they count in a step."""

from functools import partial

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards import ReferenceProbability, accuracy, build_rewards, wrap
from rlfr_vlm.rewards.custom import is_custom
from rlfr_vlm.trainer.setup import reward_functions


def per_token(completion_ids, **kwargs):
    return [[0.5] * len(ids) for ids in completion_ids]


def named(completion_ids, **kwargs):
    return [{"length": float(len(ids)), "bonus": 1.0} for ids in completion_ids]


async def late(completion_ids, **kwargs):
    return [float(len(ids) % 2) for ids in completion_ids]


def test_only_a_users_functions_are_adapted():
    [built] = build_rewards(["accuracy"], RewardOptions(), 8)
    own = [accuracy, partial(accuracy, tolerance=0.1), built, ReferenceProbability(RewardOptions()), wrap(per_token)]
    assert not any(map(is_custom, [*own, torch.nn.Linear(1, 1), "accuracy"]))
    assert all(map(is_custom, [per_token, named, late, partial(per_token), lambda **kwargs: []]))


def test_functions_that_return_tokens_names_or_a_coroutine_train_as_they_are(make_policy, make_trainer):
    trainer = make_trainer(make_policy(), reward=[late, per_token, named], max_steps=1)
    assert trainer.reward_func_names == ["late", "per_token", "named"]
    trainer.train()
    [logs] = [entry for entry in trainer.state.log_history if "rewards/named/length" in entry]
    lengths = logs["completions/mean_length"]
    assert logs["rewards/named/length"] == pytest.approx(lengths) and logs["rewards/named/bonus"] == 1.0
    assert logs["rewards/named/mean"] == pytest.approx(lengths + 1)
    assert logs["rewards/per_token/sum_over_tokens"] == pytest.approx(lengths / 2)
    assert logs["rewards/per_token/mean"] == 0.0  # they enter the advantages of tokens


def test_what_a_function_returns_is_checked(make_policy, make_trainer):
    trainer = make_trainer(make_policy(), reward=[lambda completion_ids, **kwargs: [1.0]], max_steps=1)
    with pytest.raises(UserError, match="returned 1 values for 8 responses; return one per response"):
        trainer.train()


def test_one_function_or_name_need_not_be_in_a_list():
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    args = RLFRConfig("unused", method="rlvr", use_cpu=True, report_to=[])
    assert [reward.__name__ for reward in reward_functions("accuracy", args)] == ["accuracy"]
    assert [reward.__name__ for reward in reward_functions(named, args)] == ["named"]
