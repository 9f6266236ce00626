"""Settings of this package as plain dataclasses. The module does not import torch, so that `--help` is fast.

`RLFRConfig` (rlfr_vlm/trainer/rlfr_config.py) joins `FlowOptions` with every field of TRL's `GRPOConfig`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from rlfr_vlm.errors import UserError

METHODS = ("rlvr", "rlfr", "entropy", "rlpr", "visual", "rlfr+rlpr", "rlfr+visual")
METHOD_PARTS = ("rlvr", "rlfr", "entropy", "rlpr", "visual")  # any of them may be joined by +
ACCEPT_METRICS = ("correct", "entropy")
FIT_ACCEPTS = ("all", "right", "wrong")
FLOW_LEVELS = ("token", "response")
FLOW_GATES = ("off", "auto")
FLOW_SCHEDULES = ("constant", "linear", "cosine")
LONG_PROMPT_RULES = ("drop", "downscale", "stop")
GROUP_FILTERS = ("none", "mixed", "spread")
ROLLOUTS = ("hf", "vllm-colocate", "vllm-server")
BAD_ROW_LIMIT = 0.05  # largest share of bad rows, of check-data and of training
# Settings of earlier versions that are constants now, with the constants' values. Files that have them still open.
FORMER_SETTINGS: dict[str, float] = {
    "image_min_side": 2,
    "image_max_ratio": 200.0,
    "group_min_spread": 1e-4,
    "spread_record_from": 6,
    "spread_filter_from": 11,
}


class ShapingArguments(TypedDict):
    """Keyword arguments of `rlfr_vlm.shaping.flow_rewards`."""

    coef: float
    threshold: float
    top_k: int
    two_sided: bool


@dataclass
class ModelOptions:
    """The policy."""

    model_name_or_path: str = field(default="", metadata={"help": "Policy: a local folder or a hub id."})
    model_revision: str | None = field(default=None, metadata={"help": "Revision of a hub model."})
    dtype: str = field(
        default="float32",
        metadata={
            "help": "Weights' type: float32, bfloat16, float16 or auto (as stored). Train with float32, and bf16 for "
            "speed: a bfloat16 weight rounds updates of RL's small learning rates away."
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "Attention: sdpa, flash_attention_2 or eager; the model's default if unset."}
    )
    use_peft: bool = field(default=False, metadata={"help": "Train LoRA adapters of the language tower only."})
    lora_r: int = field(default=16, metadata={"help": "LoRA: rank."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA: scale, as alpha / rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA: dropout."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "LoRA: last names of linear layers, such as q_proj; unset: all."}
    )


@dataclass
class DataOptions:
    """Rows, prompts and images."""

    dataset_name: str = field(
        default="", metadata={"help": "`digits`, a JSON/JSONL/Parquet/CSV/TSV/Arrow file, a folder, or a hub id."}
    )
    dataset_split: str = field(default="train", metadata={"help": "Split to use."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of a hub dataset that has several."}
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of a hub dataset; pin it."})
    dataset_limit: int | None = field(
        default=None, metadata={"help": "Use only this many rows (for `digits`: make this many)."}
    )
    dataset_format: str = field(
        default="auto",
        metadata={"help": "Format of the rows: auto, plain, mm_eureka, rlpr, sharegpt, geometry3k or math_suites."},
    )
    dataset_columns: list[str] = field(
        default_factory=list, metadata={"help": "Pairs such as prompt=question, where columns have other names."}
    )
    media_root: str | None = field(
        default=None,
        metadata={"help": "Folder of the images; the dataset's own if unset. Paths never leave it; / allows any."},
    )
    image_min_pixels: int | None = field(
        default=None, metadata={"help": "Images are enlarged to at least this many pixels; else the processor's own."}
    )
    image_max_pixels: int | None = field(
        default=None, metadata={"help": "Images are shrunk to at most this many pixels; else the processor's own."}
    )

    image_pixel_ceiling: int = field(
        default=64_000_000, metadata={"help": "Images with more pixels are bad; they are not even decoded."}
    )
    bad_row_limit: float = field(
        default=BAD_ROW_LIMIT,
        metadata={"help": "Bad rows are replaced and counted; a larger share of them stops the run."},
    )
    max_prompt_tokens: int | None = field(
        default=None, metadata={"help": "Longest prompt, images included; counted before training. Unset: no limit."}
    )
    long_prompts: str = field(
        default="drop", metadata={"help": "Prompts above the limit: drop, downscale (their images), or stop."}
    )
    system_prompt: str | None = field(default=None, metadata={"help": "System message put before every prompt."})

    def __post_init__(self) -> None:
        check_ranges(self, DATA_RANGES)
        if (self.image_min_pixels or 0) > (self.image_max_pixels or math.inf):
            raise UserError(
                f"image_min_pixels is {self.image_min_pixels}, above image_max_pixels {self.image_max_pixels}. "
                "Swap them, or unset one."
            )


DATA_RANGES = (
    ("bad_row_limit", 0, 1),
    ("max_prompt_tokens", 1, math.inf),
    ("image_min_pixels", 1, math.inf),
    ("image_max_pixels", 1, math.inf),
    ("image_pixel_ceiling", 1, math.inf),
)


@dataclass
class TrainOptions:
    """The method and its precautions."""

    method: str = field(
        default="rlfr",
        metadata={
            "help": f"A preset: {', '.join(METHODS)}, or parts joined by +. rlfr turns flow rewards on, entropy the "
            "entropy bonus; rlpr takes the reference-probability reward and its spread filter."
        },
    )
    freeze_vision: bool = field(default=True, metadata={"help": "Keep the vision tower as it is."})
    ban_vision_tokens: bool = field(
        default=True, metadata={"help": "Never sample vision tokens, and mask them in the log-probs alike."}
    )
    pack_by_length: bool = field(
        default=False, metadata={"help": "Put responses of like length into the same micro-batch; less padding."}
    )
    entropy_alpha: float = field(
        default=0.4, metadata={"help": "With entropy in the method: weight of a token's entropy in its advantage."}
    )
    entropy_kappa: float = field(
        default=2.0, metadata={"help": "With entropy in the method: the bonus is at most |advantage| / kappa."}
    )


@dataclass
class RolloutOptions:
    """The engine that generates. TRL's settings of vLLM, such as --vllm_gpu_memory_utilization, apply as well."""

    rollout: str = field(
        default="hf",
        metadata={
            "help": "hf: transformers. vllm-colocate: vLLM in the trainer's process. vllm-server: a server started "
            "with scripts/serve_policy.sh (needs CUDA)."
        },
    )
    rollout_check: bool = field(
        default=True,
        metadata={
            "help": "Compare each rollout's prompts and log-probs, and the first image tokens, with vLLM's, and check "
            "that vLLM receives the policy's first change."
        },
    )
    rollout_gap_limit: float = field(
        default=0.5,
        metadata={"help": "Stop when vLLM's and the trainer's log-probs differ by more per token, on average."},
    )


@dataclass
class RecordOptions:
    """The rollout log of a run."""

    rollout_log_groups: int = field(
        default=8, metadata={"help": "Groups of each rollout that a process writes to rollouts/; 0 writes none."}
    )
    rollout_log_mb: float = field(
        default=200.0, metadata={"help": "Size of a process's file; beyond it, every second rollout is dropped."}
    )


@dataclass
class RewardOptions:
    """Rewards by name and how answers are graded; weights are TRL's --reward_weights."""

    rewards: list[str] | None = field(
        default=None,
        metadata={
            "help": "Reward names, or your own `module.py:function`; the first one is the outcome. Unset: accuracy, "
            "or with rlpr reference_probability."
        },
    )
    grading_tolerance: float = field(default=0.0, metadata={"help": "Relative, for numbers; 0 compares exactly."})
    grading_time_limit: float = field(default=1.0, metadata={"help": "CPU seconds for one answer; then undecided."})
    grading_workers: int = field(default=0, metadata={"help": "Processes for grading; 0 is one per core, at most 8."})
    no_answer_is_wrong: bool = field(
        default=True, metadata={"help": "A response without an answer gets 0; false: it is undecided, and masked."}
    )
    format_pattern: str | None = field(
        default=None, metadata={"help": "For the reward format_pattern: a regular expression for whole responses."}
    )
    overlong_buffer: int = field(
        default=256, metadata={"help": "For the reward length: tokens before the limit where the penalty sets in."}
    )
    rlpr_mode: str = field(
        default="r1", metadata={"help": "Where responses have their answer: r1, r1_nothink, boxed."}
    )
    rlpr_format_weight: float = field(default=0.1, metadata={"help": "f: share of the format reward in RLPR's."})
    rlpr_debias: bool = field(
        default=True,
        metadata={"help": "Subtract the answer's probability without reasoning under the initial policy."},
    )
    rlpr_repetition_penalty: bool = field(default=True, metadata={"help": "-1 for repetitive responses."})


@dataclass
class HeldOutOptions:
    """Held-out rows and alerts; --eval_strategy and --eval_steps are transformers'."""

    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "Held-out rows, read as the training rows are; unset: dataset_name."}
    )
    eval_dataset_split: str = field(default="test", metadata={"help": "Their split."})
    eval_rows: int = field(default=256, metadata={"help": "Number of held-out rows, a fixed subset, that are used."})
    watch: bool = field(default=True, metadata={"help": "Print and record alerts about known training problems."})


@dataclass
class ReferencePassOptions:
    """The passes of the reference-probability reward (RLPR)."""

    rlpr_max_tokens: int = field(
        default=0, metadata={"help": "Longer rows (prompt and spliced response) get probability 0; 0: the context."}
    )
    rlpr_batch_size: int = field(
        default=0, metadata={"help": "Rows of one forward pass; 0 is per_device_train_batch_size."}
    )


@dataclass
class GroupOptions:
    """Selection of the groups of responses that train the policy."""

    group_filter: str | None = field(
        default=None,
        metadata={
            "help": "none; mixed: drop groups that are all right or all wrong; spread: drop groups whose reward "
            "spreads less than usual (RLPR). Unset: none, or with rlpr spread."
        },
    )
    refill_rounds: int = field(
        default=0,
        metadata={"help": "Further rounds, at most, in which new prompts replace dropped groups."},
    )

    spread_beta: float = field(default=0.5, metadata={"help": "spread: drop below beta times the running mean."})
    spread_decay: float = field(default=0.99, metadata={"help": "spread: decay of the running mean."})

    undecided_limit: float = field(
        default=0.2, metadata={"help": "Stop when a larger share of the last rollouts is undecided; 1 never stops."}
    )
    undecided_window: int = field(
        default=200, metadata={"help": "Number of the last responses over which that share is computed."}
    )


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
class VisualOptions:
    """Visual dependency (VPPO): how much a token owes to the image, as a weight on its advantage."""

    visual_share: float = field(
        default=0.4, metadata={"help": "Share of a response's tokens, the most dependent ones, that are trained."}
    )
    visual_min_scale: float = field(
        default=0.9,
        metadata={"help": "Factor on the advantage of the least dependent response; the mean factor is 1."},
    )


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


@dataclass
class RunOptions(DataOptions, ModelOptions):
    """The policy and the rows of a command that does not train with rewards."""


@dataclass
class ScriptArguments(HeldOutOptions, RewardOptions, RunOptions):
    """Settings of `rlfr train` besides `RLFRConfig`: policy, data, rewards by name, held-out rows, alerts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, SCRIPT_RANGES)


SCRIPT_RANGES = (
    ("overlong_buffer", 0, math.inf),
    ("grading_tolerance", 0, 1),
    ("eval_rows", 1, math.inf),
)


def check_ranges(options: object, ranges: Iterable[tuple[str, float, float]]) -> None:
    """Refuse numbers out of range.

    Args:
        ranges: name of a field, smallest and largest value.

    Raises:
        UserError: names the field, its value and its limits.
    """
    for name, low, high in ranges:
        value = getattr(options, name)
        if value is not None and not low <= value <= high:  # also refuses NaN
            limit = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
            raise UserError(f"{name} is {value}; it must be {limit}.")


def reward_names(options: RewardOptions, method: str) -> list[str]:
    """Names of the rewards of a run: those set, or the one of its method.

    Raises:
        UserError: the method is rlpr, and its reward is not the first one.

    >>> reward_names(RewardOptions(), "rlfr"), reward_names(RewardOptions(), "rlfr+rlpr")
    (['accuracy'], ['reference_probability'])
    """
    uses_rlpr = "rlpr" in method.split("+")
    names = options.rewards if options.rewards is not None else ["reference_probability" if uses_rlpr else "accuracy"]
    if uses_rlpr and names[:1] != ["reference_probability"]:
        raise UserError(
            f"method is {method!r}, but the first reward is {names[0] if names else None!r}; with rlpr the outcome is "
            "reference_probability. Put it first, or unset rewards."
        )
    return names
