"""`RLFRConfig`: TRL's `GRPOConfig` plus the flow options, with the defaults of RLFR's recipes."""

from dataclasses import dataclass, field

from trl import GRPOConfig

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import ACCEPT_METRICS, METHODS, FlowOptions, TrainOptions


@dataclass
class RLFRConfig(FlowOptions, TrainOptions, GRPOConfig):
    """Settings of `RLFRTrainer`. Everything TRL offers is inherited; below is what RLFR's recipes set otherwise."""

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate of the policy."})
    adam_beta2: float = field(default=0.95, metadata={"help": "AdamW's second beta."})
    loss_type: str = field(default="grpo", metadata={"help": "Mean over a response's tokens, then over responses."})
    mask_truncated_completions: bool = field(default=False, metadata={"help": "Leave truncated responses out."})
    max_completion_length: int | None = field(default=1024, metadata={"help": "Response tokens."})
    # None stands first as in transformers, whose parser depends on the order.
    report_to: None | str | list[str] = field(default="tensorboard", metadata={"help": "Where metrics go."})  # noqa: RUF036
    logging_steps: float = field(default=1, metadata={"help": "Log every so many updates."})

    def __post_init__(self) -> None:
        _check_flow(self)
        if self.method == "rlvr":
            self.flow_coef = 0.0
        super().__post_init__()

    @property
    def uses_flow(self) -> bool:
        """Whether flow rewards are on."""
        return self.flow_coef != 0.0


def _check_flow(config: RLFRConfig) -> None:
    """Refuse values and combinations that cannot work. Each message names the value, the reason and the way out."""
    if config.method not in METHODS:
        raise UserError(f"method is {config.method!r}; choose one of {', '.join(METHODS)}.")
    if config.num_generations is not None and config.num_generations < 2:
        raise UserError(
            f"num_generations is {config.num_generations}; GRPO compares responses to the same prompt and needs at "
            "least 2. Set num_generations to 8, as RLFR does."
        )
    if config.method == "rlvr" or config.flow_coef == 0.0:
        return
    if config.flow_coef < 0:
        raise UserError(f"flow_coef is {config.flow_coef}; it is the weight of a reward. Set it to 0 or more.")
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
    if config.off_policy_mask_threshold is not None:
        raise UserError(
            "off_policy_mask_threshold works on one advantage per response; flow rewards give one per token. Unset "
            "it, or set flow_coef: 0."
        )
    if config.loss_type == "vespo":
        raise UserError(
            "loss_type vespo weighs whole responses by the sign of their one advantage; flow rewards give one per "
            "token. Use loss_type: grpo, or set flow_coef: 0."
        )
