"""`RLFRConfig`: TRL's `GRPOConfig` and what `RLFRTrainer` reads beside it, with the defaults of RLFR's recipes.

Policy, data and rewards by name are arguments of the trainer; commands read them from `ScriptArguments`.
"""

import math
from dataclasses import dataclass, field

import torch
from trl import GRPOConfig

from rlfr_vlm.checkpoint import ResumableArguments
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.flow import NoisePlan
from rlfr_vlm.flow.statistics import check_statistic
from rlfr_vlm.flow_options import ACCEPT_METRICS, FLOW_GATES, FLOW_LEVELS, FLOW_SCHEDULES, FlowOptions
from rlfr_vlm.methods import REFUSED_ELSEWHERE
from rlfr_vlm.options import (
    GROUP_FILTERS,
    ROLLOUTS,
    SERVER_WEIGHTS,
    CurriculumOptions,
    GroupOptions,
    RecordOptions,
    ReferencePassOptions,
    RolloutOptions,
    TrainOptions,
    VisualOptions,
    check_ranges,
    method_parts,
)

LARGEST = 1e30  # finite numbers only
RANGES = (
    ("image_feature_cache_gb", 0, LARGEST),
    ("micro_batch_tokens", 0, math.inf),
    ("undecided_limit", 0, 1),
    ("undecided_window", 1, math.inf),
    ("spread_decay", 0, 1),
    ("spread_beta", 0, math.inf),
    ("rlpr_max_tokens", 0, math.inf),
    ("rlpr_batch_size", 0, math.inf),
    ("flow_accept_threshold", -math.inf, math.inf),
    ("rollout_gap_limit", 0, math.inf),
    ("rollout_log_groups", 0, math.inf),
    ("rollout_log_mb", 0.01, math.inf),
    ("flow_retest_every", 0, math.inf),
    ("flow_response_coef", 0, LARGEST),
    ("flow_gate_window", 1, math.inf),
    ("flow_from_step", 0, math.inf),
    ("flow_to_step", 0, math.inf),
    ("flow_end_share", 0, LARGEST),
    ("curriculum_floor", 1e-6, 1),
    ("curriculum_decay", 0, 1),
    ("visual_share", 1e-6, 1),
    ("visual_min_scale", 0, 1),
    ("per_device_train_batch_size", 1, math.inf),
    ("gradient_accumulation_steps", 1, math.inf),
    ("learning_rate", 0, LARGEST),
    ("temperature", 1e-6, LARGEST),
)
# Values of TRL's settings that it checks only in the first update; read in TRL 1.16's GRPOTrainer.
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
SCALES = ("group", "batch", "none")
SHARING = ("auto", "true", "false")
PLACES = ("device", "host")


@dataclass
class RLFRConfig(
    FlowOptions,
    VisualOptions,
    CurriculumOptions,
    GroupOptions,
    RecordOptions,
    ReferencePassOptions,
    RolloutOptions,
    TrainOptions,
    ResumableArguments,
    GRPOConfig,
):
    """Settings of `RLFRTrainer`. Those of TRL are inherited; the fields below have RLFR's values as defaults."""

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate of the policy."})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW's second beta."})
    loss_type: str = field(default="grpo", metadata={"help": "Mean over a response's tokens, then over responses."})
    mask_truncated_completions: bool = field(default=False, metadata={"help": "Leave truncated responses out."})
    max_completion_length: int | None = field(default=1024, metadata={"help": "Response tokens."})
    # None stands first as in transformers, whose parser depends on the order.
    report_to: None | str | list[str] = field(default="tensorboard", metadata={"help": "Where metrics go."})  # noqa: RUF036
    log_multimodal: bool = field(
        default=False, metadata={"help": "TRL's own log of images; it sends all of them to one process every rollout."}
    )
    logging_steps: float = field(default=1, metadata={"help": "Updates between two logs."})

    def __post_init__(self) -> None:
        parts = method_parts(self.method)
        _check_unused(self, parts)
        _check_upstream(self)
        _check_groups(self)
        _check_curriculum(self, parts)
        _check_rollout(self)
        _check_sharing(self)
        _check_switches(self, parts)
        _check_flow(self, "rlfr" in parts)
        if "rlfr" not in parts:
            self.flow_coef = 0.0
        if "entropy" not in parts:
            self.entropy_alpha = 0.0
        if self.group_filter is None:
            self.group_filter = "spread" if "rlpr" in parts else "none"
        _check_shaping(self)
        _check_pieces(self)
        if self.eval_strategy != "no":
            self.metric_for_best_model: str | None = self.metric_for_best_model or "eval_greedy"
        if self.bf16 is None and not self.use_cpu and not torch.accelerator.is_available():
            self.bf16: bool | None = False  # TRL's default is true, which transformers refuses on a CPU
        super().__post_init__()

    @property
    def uses_flow(self) -> bool:
        """Whether flow rewards are on."""
        return self.flow_coef != 0.0

    @property
    def uses_visual(self) -> bool:
        """Whether advantages are weighted by visual dependency."""
        return "visual" in method_parts(self.method)

    @property
    def uses_entropy(self) -> bool:
        """Whether the entropy bonus is on."""
        return self.entropy_alpha != 0.0


def _check_unused(config: RLFRConfig, parts: set[str]) -> None:
    """Refuse a setting that the method does not read, unless it has its default or is off."""
    for name, part in REFUSED_ELSEWHERE.items():
        value, default = getattr(config, name), RLFRConfig.__dataclass_fields__[name].default
        if part not in parts and value and value != default:
            raise UserError(
                f"{name} is {value}, but method {config.method!r} does not read it. Unset it, or join the method "
                f"with {part}: method: {config.method}+{part}."
            )


def _check_upstream(config: RLFRConfig) -> None:
    """Refuse values of TRL's and transformers' settings that they would refuse only after the policy is loaded."""
    from importlib.util import find_spec

    from transformers.integrations import integration_utils

    if config.max_completion_length is not None and config.max_completion_length < 1:
        raise UserError(f"max_completion_length is {config.max_completion_length}; it must be at least 1.")
    scale = {True: "group", False: "none"}.get(config.scale_rewards, config.scale_rewards)
    for name, value, known in (("loss_type", config.loss_type, LOSS_TYPES), ("scale_rewards", scale, SCALES)):
        if value not in known:
            raise UserError(f"{name} is {value!r}; choose one of {', '.join(known)}.{nearest(str(value), known)}")
    loggers = integration_utils.INTEGRATION_TO_CALLBACK
    chosen = [config.report_to] if isinstance(config.report_to, str) else config.report_to or []
    for logger in chosen:
        if logger in ("all", "none"):
            continue
        if logger not in loggers:
            raise UserError(f"report_to is {logger!r}; choose none or one of {', '.join(loggers)}.")
        if logger not in integration_utils.get_available_reporting_integrations():
            raise UserError(f"report_to is {logger!r}, whose package is not installed. Install {logger}, or unset it.")
    if config.use_liger_kernel and find_spec("liger_kernel") is None:
        raise UserError("use_liger_kernel is true, but liger-kernel is not installed. Install it, or unset it.")


def _check_sharing(config: RLFRConfig) -> None:
    if isinstance(config.share_prefix, bool):  # as YAML reads true and false
        config.share_prefix = str(config.share_prefix).lower()
    for name, known in (("share_prefix", SHARING), ("image_feature_cache_on", PLACES)):
        if (value := getattr(config, name)) not in known:
            raise UserError(f"{name} is {value!r}; choose one of {', '.join(known)}.{nearest(value, known)}")


def _check_pieces(config: RLFRConfig) -> None:
    """Refuse settings whose losses are not sums over the pieces of a micro-batch."""
    if not config.micro_batch_tokens:
        return
    quantile, mean = "which is a quantile of a whole micro-batch", "which acts on means of a whole micro-batch"
    for name, is_set, what in (
        ("top_entropy_quantile", config.top_entropy_quantile < 1, quantile),
        ("flow_accept", config.uses_flow and config.flow_accept == "entropy", quantile),
        ("entropy_coef", config.entropy_coef != 0, mean),
        ("use_adaptive_entropy", config.use_adaptive_entropy, mean),
        ("router_aux_loss_coef", config.router_aux_loss_coef, mean),
        ("optim", "lomo" in str(config.optim).lower(), "which changes weights within a backward pass"),
    ):
        if is_set:
            raise UserError(
                f"micro_batch_tokens is {config.micro_batch_tokens} and {name} is {getattr(config, name)}, {what}; a "
                "micro-batch that runs in pieces would give something else. Unset one of the two."
            )


def _check_switches(config: RLFRConfig, parts: set[str]) -> None:
    """Refuse a method whose weight is 0: it would run as rlvr under another name."""
    for part, name in (("rlfr", "flow_coef"), ("entropy", "entropy_alpha")):
        if part in parts and getattr(config, name) == 0.0:
            raise UserError(f"method is {config.method!r} but {name} is 0. Set {name} above 0, or method: rlvr.")


def _check_groups(config: RLFRConfig) -> None:
    if config.num_generations is not None and config.num_generations < 2:
        raise UserError(
            f"num_generations is {config.num_generations}; GRPO compares responses to the same prompt and needs at "
            "least 2. Set num_generations to 8, as RLFR does."
        )
    if config.group_filter is not None and config.group_filter not in GROUP_FILTERS:
        raise UserError(f"group_filter is {config.group_filter!r}; choose one of {', '.join(GROUP_FILTERS)}.")
    if config.refill_rounds < 0:
        raise UserError(f"refill_rounds is {config.refill_rounds}; it is a number of rounds, 0 or more.")

    check_ranges(config, RANGES)


def _check_curriculum(config: RLFRConfig, parts: set[str]) -> None:
    """Refuse a band that is none, and what leaves a curriculum nothing to decide by or to decide."""
    band = config.curriculum_band
    if band is None:
        if config.curriculum_start is not None:
            raise UserError(
                f"curriculum_start is {config.curriculum_start}, but curriculum_band is unset, so that success rates "
                "are not used. Set curriculum_band to 0.2 0.8, or unset curriculum_start."
            )
        return
    if len(band) != 2 or not 0 <= band[0] <= band[1] <= 1:
        raise UserError(
            f"curriculum_band is {band}; it is two success rates between 0 and 1, the lower one first. Set 0.2 0.8, "
            "or unset it."
        )
    if band[0] == 0 and band[1] == 1:
        raise UserError(
            "curriculum_band is 0 to 1, which holds every prompt, so that all are drawn alike. Narrow it, such as 0.2 "
            "0.8, or unset it."
        )
    if "rlpr" in parts:
        raise UserError(
            f"curriculum_band counts right and wrong responses, and the outcome of method {config.method!r} is a "
            "probability. Unset it; group_filter: spread drops groups that teach little."
        )
    if not config.shuffle_dataset:
        raise UserError(
            "curriculum_band draws prompts at random, and shuffle_dataset is false, which keeps the order of the "
            "rows. Unset one of the two."
        )


def _check_rollout(config: RLFRConfig) -> None:
    """Set TRL's `use_vllm` and `vllm_mode` from `rollout`, or `rollout` from them."""
    if config.use_vllm and config.rollout == "hf":
        config.rollout = f"vllm-{config.vllm_mode}"
    if config.sync_ref_model:
        raise UserError(
            "sync_ref_model is true, but a moving reference model is in no checkpoint, so a resumed run would go on "
            "with another one. Unset it; beta with the initial policy as reference works."
        )
    if config.rollout not in ROLLOUTS:
        raise UserError(
            f"rollout is {config.rollout!r}; choose one of {', '.join(ROLLOUTS)}.{nearest(config.rollout, ROLLOUTS)}"
        )
    if config.rollout != "hf":
        config.use_vllm, config.vllm_mode = True, config.rollout.removeprefix("vllm-")
    if config.server_weights not in SERVER_WEIGHTS:
        raise UserError(
            f"server_weights is {config.server_weights!r}; choose one of {', '.join(SERVER_WEIGHTS)}."
            f"{nearest(config.server_weights, SERVER_WEIGHTS)}"
        )
    if config.rollout_ahead:
        _check_rollout_ahead(config)


def _check_rollout_ahead(config: RLFRConfig) -> None:
    """Refuse rollouts ahead where nothing generates beside the trainer, or where they would not be corrected."""
    if config.rollout != "vllm-server":
        raise UserError(
            f"rollout_ahead is true and rollout {config.rollout!r}: only a server of its own can generate while the "
            "policy trains. Set rollout: vllm-server, or rollout_ahead: false."
        )
    if not config.vllm_importance_sampling_correction:
        raise UserError(
            "rollout_ahead is true and vllm_importance_sampling_correction false: responses of an older policy would "
            "count as the current one's. Set one of the two otherwise."
        )
    if config.curriculum_band is not None:
        raise UserError(
            "rollout_ahead sends the prompts of the next rollout before this one is graded, and curriculum_band draws "
            "them by its grades. Unset one of the two."
        )


def _check_shaping(config: RLFRConfig) -> None:
    """Refuse settings of TRL that need one advantage per response, and invalid values of the shaping."""
    if config.entropy_alpha < 0 or config.entropy_kappa <= 0:
        raise UserError(
            f"entropy_alpha is {config.entropy_alpha} and entropy_kappa {config.entropy_kappa}; alpha must be 0 or "
            "more and kappa above 0. Use 0.4 and 2."
        )
    if config.refill_rounds and config.group_filter == "none":
        raise UserError(
            f"refill_rounds is {config.refill_rounds}, but group_filter is none, so no group is ever dropped. Set "
            "group_filter: mixed, or refill_rounds: 0."
        )
    if not (config.uses_flow or config.uses_entropy or config.uses_visual):
        return
    source = "flow rewards give" if config.uses_flow else "the entropy bonus gives"
    source = "visual dependency gives" if config.uses_visual and not config.uses_flow else source
    if config.off_policy_mask_threshold is not None:
        raise UserError(
            f"off_policy_mask_threshold works on one advantage per response; {source} one per token. Unset it, or set "
            "method: rlvr."
        )
    if config.loss_type == "vespo":
        raise UserError(
            f"loss_type vespo weighs whole responses by the sign of their one advantage; {source} one per token. Use "
            "loss_type: grpo, or set method: rlvr."
        )


def _check_flow(config: RLFRConfig, uses_flow: bool) -> None:
    """Refuse invalid settings of the flow reward."""
    if not uses_flow or config.flow_coef == 0.0:
        return
    if config.flow_coef < 0:
        raise UserError(f"flow_coef is {config.flow_coef}; it is the weight of a reward. Set it to 0 or more.")
    NoisePlan(config.flow_noise, config.flow_noise_draws, config.flow_antithetic)  # type: ignore[arg-type]
    check_statistic(config.flow_statistic)
    if config.flow_gate is False:  # YAML reads off as false
        config.flow_gate = "off"
    for name, known in (
        ("flow_level", FLOW_LEVELS),
        ("flow_gate", FLOW_GATES),
        ("flow_schedule", FLOW_SCHEDULES),
    ):
        value = getattr(config, name)
        if value not in known:
            raise UserError(f"{name} is {value!r}; choose one of {', '.join(known)}.{nearest(str(value), known)}")
    if config.flow_to_step and config.flow_to_step < config.flow_from_step:
        raise UserError(
            f"flow_to_step is {config.flow_to_step} and flow_from_step {config.flow_from_step}; the schedule cannot "
            "end before it begins. Raise flow_to_step, or set it to 0 for the last update."
        )
    if bad := [t for t in config.flow_timesteps if not 0 < t < 1]:
        raise UserError(f"flow_timesteps has {bad[0]}; times lie between 0 (noise) and 1 (data). RLFR uses 0.8.")
    if not config.flow_timesteps:
        raise UserError("flow_timesteps is empty; give at least one time, such as 0.8.")
    if config.flow_accept not in ACCEPT_METRICS:
        raise UserError(f"flow_accept is {config.flow_accept!r}; choose one of {', '.join(ACCEPT_METRICS)}.")
    if not 0 <= config.flow_soft_weight <= 1:
        raise UserError(f"flow_soft_weight is {config.flow_soft_weight}; it is a share between 0 and 1.")
    if not 0 <= config.flow_entropy_quantile <= 1:
        raise UserError(f"flow_entropy_quantile is {config.flow_entropy_quantile}; it is a quantile between 0 and 1.")
    if config.flow_noise_repeats < 1:
        raise UserError(
            f"flow_noise_repeats is {config.flow_noise_repeats}; each token needs at least one noise copy."
        )
    if config.flow_two_sided and config.flow_top_k == 1:
        raise UserError(
            "flow_top_k is 1, but two-sided rewards keep half of it on each side, which is none. Set it to 2 or more, "
            "to 0 for no limit, or set flow_two_sided: false."
        )
