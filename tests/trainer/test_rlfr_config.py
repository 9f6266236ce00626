"""Settings that cannot work are refused when they are made."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions, ScriptArguments, reward_names
from rlfr_vlm.trainer.rlfr_config import RLFRConfig


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
        ({"flow_coef": 0.0}, "method is 'rlfr' but flow_coef is 0"),
        ({"flow_noise": "groups"}, "flow_noise is 'groups'; choose one of token, .*Did you mean 'group'"),
        ({"flow_noise_draws": 0}, "flow_noise_draws is 0; it must be at least 1"),
        ({"flow_level": "tokens"}, "flow_level is 'tokens'; choose one of token, response"),
        ({"flow_statistic": "median"}, "flow_statistic is 'median'; choose one of mean, max, last"),
        ({"flow_gate": "on"}, "flow_gate is 'on'; choose one of off, auto"),
        ({"flow_gate": True}, "flow_gate is True; choose one of off, auto"),
        ({"flow_schedule": "linearly"}, "flow_schedule is 'linearly'; .*Did you mean 'linear'"),
        ({"flow_from_step": 9, "flow_to_step": 3}, "flow_to_step is 3 and flow_from_step 9"),
        ({"flow_gate_window": 0}, "flow_gate_window is 0"),
        ({"visual_share": 0.0}, "visual_share is 0.0; it must be between"),
        ({"method": "visual", "loss_type": "vespo"}, "visual dependency gives one per token"),
        ({"method": "entropy", "entropy_alpha": 0.0}, "method is 'entropy' but entropy_alpha is 0"),
        ({"method": "entropy", "entropy_kappa": 0.0}, "entropy_kappa 0.0"),
        ({"group_filter": "all"}, "group_filter is 'all'; choose one of none, mixed, spread"),
        ({"refill_rounds": -1}, "refill_rounds is -1"),
        ({"undecided_window": 0}, "undecided_window is 0; it must be at least 1"),
        ({"undecided_limit": 2.0}, "undecided_limit is 2.0; it must be between 0 and 1"),
        ({"spread_decay": float("nan")}, "spread_decay is nan"),
        ({"rlpr_max_tokens": -1}, "rlpr_max_tokens is -1"),
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


@pytest.mark.parametrize(
    ("method", "flow", "entropy", "rewards", "group_filter"),
    [
        ("rlvr", False, False, ["accuracy"], "none"),
        ("rlfr", True, False, ["accuracy"], "none"),
        ("entropy", False, True, ["accuracy"], "none"),
        ("rlpr", False, False, ["reference_probability"], "spread"),
        ("rlfr+rlpr", True, False, ["reference_probability"], "spread"),
        ("rlfr+entropy", True, True, ["accuracy"], "none"),
        ("rlfr+visual", True, False, ["accuracy"], "none"),
    ],
)
def test_methods_are_presets(tmp_path, method, flow, entropy, rewards, group_filter):
    made = config(tmp_path, method=method)
    assert (made.uses_flow, made.uses_entropy, made.group_filter) == (flow, entropy, group_filter)
    assert reward_names(RewardOptions(), method) == rewards


def test_with_rlpr_its_reward_comes_first():
    options = RewardOptions(rewards=["accuracy"])
    assert reward_names(options, "rlfr") == ["accuracy"]
    with pytest.raises(UserError, match="method is 'rlpr', but the first reward is 'accuracy'"):
        reward_names(options, "rlpr")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"eval_rows": 0}, "eval_rows is 0; it must be at least 1"), ({"grading_tolerance": 2.0}, "between 0 and 1")],
)
def test_script_arguments_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        ScriptArguments(**changes)


def test_off_without_quotes_in_yaml_turns_the_gate_off(tmp_path):
    assert config(tmp_path, method="rlfr", flow_gate=False).flow_gate == "off"


def test_options_for_response_advantages_are_fine_without_flow(tmp_path):
    config(tmp_path, method="rlvr", off_policy_mask_threshold=0.5)
