"""Settings of flow rewards and of fitting a field, as plain dataclasses. The module does not import torch."""

from dataclasses import dataclass, field
from typing import TypedDict

ACCEPT_METRICS = ("correct", "entropy")
FIT_ACCEPTS = ("all", "right", "wrong")
FLOW_LEVELS = ("token", "response")
FLOW_GATES = ("off", "auto")
FLOW_SCHEDULES = ("constant", "linear", "cosine")


class ShapingArguments(TypedDict):
    """Keyword arguments of `rlfr_vlm.shaping.flow_rewards`."""

    coef: float
    threshold: float
    top_k: int
    two_sided: bool


@dataclass
class FlowOptions:
    """The flow reward (RLFR). With flow_coef 0 the trainer is TRL's GRPO."""

    flow_path: str | None = field(default=None, metadata={"help": "Folder of the fitted field (`rlfr fit-flow`)."})
    flow_coef: float = field(default=0.01, metadata={"help": "beta: weight of the flow reward; 0 turns it off."})
    flow_context_mode: str = field(
        default="token_pre", metadata={"help": "token_pre, token_post or identity; must be the field's own."}
    )
    flow_shift: int = field(default=1, metadata={"help": "Distance to the conditioning token; the field's own."})
    flow_timesteps: list[float] = field(
        default_factory=lambda: [0.8], metadata={"help": "Rewarding timesteps, above 0 and below 1; 1 is data."}
    )
    flow_noise: str = field(
        default="group",
        metadata={
            "help": "Who shares a noise draw: token (each has its own; the paper), response or group; none: no noise."
        },
    )
    flow_noise_draws: int = field(default=1, metadata={"help": "Draws that a deviation is averaged over."})
    flow_antithetic: bool = field(
        default=True, metadata={"help": "Use each draw with both signs, so that the reward depends less on it."}
    )
    flow_retest_every: int = field(
        default=25,
        metadata={"help": "Every so many rollouts, count the rewards that keep their sign under new noise; 0: never."},
    )
    flow_score_layers: list[int] = field(
        default_factory=list, metadata={"help": "Blocks whose deviations are rewarded; unset: all of the field's."}
    )
    flow_level: str = field(
        default="token", metadata={"help": "Reward tokens (the paper), or each response by one number (response)."}
    )
    flow_statistic: str = field(
        default="mean",
        metadata={
            "help": "Number of a response, for level response and for the gate: mean, max, last, before_answer, "
            "end_minus_start."
        },
    )
    flow_response_coef: float = field(
        default=0.1, metadata={"help": "Level response: weight of the standard score within the group."}
    )
    flow_skip_uniform: bool = field(
        default=True, metadata={"help": "Level response: none for groups that are all right or all wrong."}
    )
    flow_gate: str = field(
        default="off",
        metadata={
            "help": "auto: reward only while low deviation goes with right responses to the same prompt, by the "
            "interval of the AUC over the last rollouts; off: always."
        },
    )
    flow_gate_window: int = field(default=20, metadata={"help": "Rollouts over which the gate measures."})
    flow_schedule: str = field(
        default="constant", metadata={"help": "Weight of the flow reward over training: constant, linear, cosine."}
    )
    flow_from_step: int = field(default=0, metadata={"help": "First update with a flow reward."})
    flow_to_step: int = field(default=0, metadata={"help": "Update at which the schedule ends; 0: the last one."})
    flow_end_share: float = field(
        default=0.0, metadata={"help": "linear, cosine: share of the weight that is left at the end."}
    )
    flow_two_sided: bool = field(
        default=True, metadata={"help": "Reward low and penalise high deviation (paper); false: penalise only."}
    )
    flow_threshold: float = field(default=0.6, metadata={"help": "eta: normalised deviations up to this count 0."})
    flow_top_k: int = field(
        default=15, metadata={"help": "At most this many tokens a response are rewarded; 0 is no limit."}
    )
    flow_gamma: float = field(default=1.0, metadata={"help": "Discount of the return-to-go."})
    flow_update: bool = field(default=True, metadata={"help": "Keep fitting the field on accepted responses."})
    flow_accept: str = field(
        default="correct", metadata={"help": "Accepted for the update: correct responses, or tokens of high entropy."}
    )
    flow_accept_threshold: float = field(
        default=0.5, metadata={"help": "A response is correct when its first reward exceeds this."}
    )
    flow_entropy_quantile: float = field(
        default=0.8, metadata={"help": "With flow_accept entropy: tokens at or above this quantile are accepted."}
    )
    flow_soft_weight: float = field(default=0.0, metadata={"help": "Weight of what is not accepted, 0 to 1."})
    flow_learning_rate: float = field(default=1e-4, metadata={"help": "AdamW learning rate of the update."})
    flow_weight_decay: float = field(default=0.01, metadata={"help": "AdamW weight decay of the update."})
    flow_max_grad_norm: float = field(default=1.0, metadata={"help": "Gradient clip of the update."})
    flow_noise_repeats: int = field(default=1, metadata={"help": "Noise copies of each token in the update."})

    def shaping(self, share: float = 1.0) -> ShapingArguments:
        """Return the keyword arguments of `rlfr_vlm.shaping.flow_rewards`, with a share of the coefficient."""
        return {
            "coef": self.flow_coef * share,
            "threshold": self.flow_threshold,
            "top_k": self.flow_top_k,
            "two_sided": self.flow_two_sided,
        }


@dataclass
class FitOptions:
    """Fitting a field; optimiser and batch come from transformers' TrainingArguments."""

    flow_reference: str = field(
        default="expert",
        metadata={
            "help": "What the responses are: expert; own, the policy's (`rlfr sample`); contrast, the policy's right "
            "and wrong ones, told apart by a class input."
        },
    )
    flow_accept: str = field(
        default="all", metadata={"help": "Rows to fit on, by their column verdict: all, right or wrong."}
    )

    flow_depth: int = field(default=4, metadata={"help": "Residual blocks: 4 up to 3B policies, 6 for 7B and 8B."})
    flow_layers: list[float] = field(
        default_factory=lambda: [0.25, 0.5, 0.75], metadata={"help": "Shares of the depth where latents are taken."}
    )
    flow_context_mode: str = field(default="token_pre", metadata={"help": "token_pre, token_post or identity."})
    flow_shift: int = field(default=1, metadata={"help": "Distance to the conditioning token."})
    flow_image_context: bool = field(
        default=False, metadata={"help": "Also condition on the mean latent of the image tokens."}
    )
    flow_latents: str = field(
        default="raw",
        metadata={"help": "Form of the latents: raw; sphere, of length 1; minus_prompt, less the prompt's mean."},
    )
    flow_normalise: bool = field(
        default=False, metadata={"help": "Normalise latents per layer; statistics are stored in the spec."}
    )
    flow_noise_repeats: int = field(default=4, metadata={"help": "Noise copies of each token (RLFR: 2 for 7B LMs)."})
    max_length: int = field(
        default=8192, metadata={"help": "Rows with more tokens are left out and counted (RLFR: 16384 for VL)."}
    )
    eval_fraction: float = field(
        default=0.05, metadata={"help": "Share of rows, the last ones, held out for the reported loss."}
    )
    eval_rows: int = field(default=512, metadata={"help": "At most this many held-out rows."})
