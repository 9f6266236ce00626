"""Settings that cannot work are refused when they are made."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.config import RLFRConfig


def config(tmp_path, **changes) -> RLFRConfig:
    return RLFRConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], **changes)


def test_defaults_are_those_of_the_papers_recipes(tmp_path):
    made = config(tmp_path)
    assert (made.flow_coef, made.flow_threshold, made.flow_top_k, made.flow_gamma) == (0.01, 0.6, 15, 1.0)
    assert (made.flow_timesteps, made.flow_two_sided, made.flow_learning_rate) == ([0.8], True, 1e-4)
    assert (made.num_generations, made.learning_rate, made.loss_type, made.beta) == (8, 1e-6, "grpo", 0.0)
    assert (made.temperature, made.epsilon, made.max_grad_norm, made.scale_rewards) == (1.0, 0.2, 1.0, "group")
    assert (made.adam_beta1, made.adam_beta2) == (0.9, 0.95)
    assert (made.freeze_vision, made.ban_vision_tokens) == (True, True)


def test_rlvr_turns_the_flow_off(tmp_path):
    assert not config(tmp_path, method="rlvr").uses_flow
    assert config(tmp_path).uses_flow


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "rlfx"}, "method is 'rlfx'; choose one of rlvr, rlfr"),
        ({"num_generations": 1}, "num_generations is 1; .*at least 2"),
        ({"flow_coef": -1.0}, "flow_coef is -1.0"),
        ({"flow_timesteps": [1.0]}, "flow_timesteps has 1.0"),
        ({"flow_timesteps": []}, "flow_timesteps is empty"),
        ({"flow_accept": "all"}, "flow_accept is 'all'"),
        ({"flow_soft_weight": 2.0}, "flow_soft_weight is 2.0"),
        ({"flow_entropy_quantile": 1.5}, "flow_entropy_quantile is 1.5"),
        ({"flow_noise_repeats": 0}, "flow_noise_repeats is 0"),
        ({"flow_top_k": 1}, "flow_top_k is 1, but two-sided rewards keep half"),
        ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold works on one advantage per response"),
        ({"loss_type": "vespo"}, "loss_type vespo weighs whole responses"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        config(tmp_path, **changes)


def test_options_for_response_advantages_are_fine_without_flow(tmp_path):
    config(tmp_path, method="rlvr", off_policy_mask_threshold=0.5)
