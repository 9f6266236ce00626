"""Settings of this package as plain dataclasses. The module does not import torch, so that `--help` is fast.

`RLFRConfig` (rlfr_vlm/trainer/rlfr_config.py) joins them with every field of TRL's `GRPOConfig`. Those of the flow
field are in flow_options.py.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.sources import checked_names, sources_of

METHODS = ("rlvr", "rlfr", "entropy", "rlpr", "visual", "rlfr+rlpr", "rlfr+visual")
METHOD_PARTS = ("rlvr", "rlfr", "entropy", "rlpr", "visual")  # any of them may be joined by +
LONG_PROMPT_RULES = ("drop", "downscale", "stop")
# data/source.py makes their rows
EMBEDDED_TASKS = ("digits", "digits_video", "word_problems", "charts", "clocks", "grids", "shapes")
GROUP_FILTERS = ("none", "mixed", "spread")
ROLLOUTS = ("hf", "vllm-colocate", "vllm-server")
SERVER_WEIGHTS = ("auto", "nccl", "folder")
BAD_ROW_LIMIT = 0.05  # largest share of bad rows, of check-data and of training
# Settings of earlier versions that are constants now, with the constants' values. Files that have them still open.
FORMER_SETTINGS: dict[str, float] = {
    "image_min_side": 2,
    "image_max_ratio": 200.0,
    "group_min_spread": 1e-4,
    "spread_record_from": 6,
    "spread_filter_from": 11,
}


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
    load_in_4bit: bool = field(
        default=False,
        metadata={"help": "With use_peft: keep the language tower's own weights in 4 bits (QLoRA); on a GPU."},
    )
    lora_r: int = field(default=16, metadata={"help": "LoRA: rank."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA: scale, as alpha / rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA: dropout."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "LoRA: last names of linear layers, such as q_proj; unset: all."}
    )


@dataclass
class DataOptions:
    """Rows, prompts and images."""

    dataset_name: str | list[str] = field(  # a list for several; one name is always a text
        default_factory=str,
        metadata={
            "help": "A JSON/JSONL/Parquet/CSV/TSV/Arrow file, a folder, a hub id, a task of reasoning-gym such as "
            f"'reasoning_gym:chain_sum?max_terms=3&size=2000', or a built-in task: {', '.join(EMBEDDED_TASKS)}. "
            "Several are mixed: by weights such as a.jsonl:0.7 digits:0.3, else in proportion to their rows."
        },
    )
    dataset_split: str = field(default="train", metadata={"help": "Split to use."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of a hub dataset that has several."}
    )
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of a hub dataset; pin it."})
    dataset_limit: int | None = field(
        default=None,
        metadata={"help": "Use only this many rows, of each source (of a built-in task: make this many)."},
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
        metadata={
            "help": "Folder of images and videos; the dataset's own if unset. Paths never leave it; / allows any."
        },
    )
    image_min_pixels: int | None = field(
        default=None, metadata={"help": "Images are enlarged to at least this many pixels; else the processor's own."}
    )
    image_max_pixels: int | None = field(
        default=None, metadata={"help": "Images are shrunk to at most this many pixels; else the processor's own."}
    )
    video_fps: float = field(
        default=2.0, metadata={"help": "Frames a second drawn from a video file; the fps of videos given as frames."}
    )
    video_max_frames: int = field(
        default=32, metadata={"help": "Most frames of a video; more are thinned out evenly. Lowers the fps."}
    )
    video_max_pixels: int | None = field(
        default=None, metadata={"help": "Frames are shrunk to at most this many pixels; else the processor's own."}
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
        self.dataset_name = checked_names("dataset_name", self.dataset_name)
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
    ("video_fps", 1e-3, 1000),
    ("video_max_frames", 2, 100_000),
    ("video_max_pixels", 1, math.inf),
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
    micro_batch_tokens: int = field(
        default=0,
        metadata={
            "help": "Largest number of tokens of a forward and backward pass: a micro-batch above it runs in pieces, "
            "whose gradients add up. A prompt that is shared counts once in a piece; a row above it runs alone. 0 "
            "runs each micro-batch whole."
        },
    )
    share_prefix: str = field(
        default="auto",
        metadata={
            "help": "Run a prompt and its images once for all its responses in a forward pass: auto where that is "
            "tested to give the same log-probs, true, or false. Micro-batches hold whole groups where they can."
        },
    )
    image_feature_cache_gb: float = field(
        default=2.0,
        metadata={
            "help": "Memory of a process for what a frozen vision tower makes of a rollout's images, for all its "
            "passes; 0 runs the tower in each."
        },
    )
    image_feature_cache_on: str = field(
        default="device", metadata={"help": "Where these features are kept: device, or host, which is slower."}
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
            "with scripts/serve_policy.sh."
        },
    )
    server_weights: str = field(
        default="auto",
        metadata={
            "help": "How a vllm-server gets the policy's weights: nccl (from GPU to GPU), folder (files in "
            "server_weights_folder), or auto: nccl with CUDA, else folder."
        },
    )
    server_weights_folder: str | None = field(
        default=None,
        metadata={
            "help": "Folder that trainer and server see under the same path, such as /dev/shm. Each update "
            "writes files there, and removes them when the server has read them. Unset: output_dir."
        },
    )
    rollout_ahead: bool = field(
        default=False,
        metadata={
            "help": "Let a vllm-server generate the next rollout while this one trains. Its responses are then by the "
            "policy of one rollout ago; TRL's importance sampling corrects for it."
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
            "help": "Reward names, or your own `module.py:function`; the first one is the outcome. Unset: accuracy; "
            "reasoning_gym with a task of reasoning-gym; reference_probability with rlpr."
        },
    )
    grading_tolerance: float = field(default=0.0, metadata={"help": "Relative, for numbers; 0 compares exactly."})
    grading_time_limit: float = field(default=1.0, metadata={"help": "CPU seconds for one answer; then undecided."})
    grading_workers: int = field(default=0, metadata={"help": "Processes for grading; 0 is one per core, at most 8."})
    no_answer_is_wrong: bool = field(
        default=True, metadata={"help": "A response without an answer gets 0; false: it is undecided, and masked."}
    )
    partial_scores: bool = field(
        default=False, metadata={"help": "For the reward reasoning_gym: give scores below 1 as they are, not as 0."}
    )
    format_pattern: str | None = field(
        default=None, metadata={"help": "For the reward format_pattern: a regular expression for whole responses."}
    )
    overlong_buffer: int = field(
        default=256, metadata={"help": "For the reward length: tokens before the limit where the penalty sets in."}
    )
    reward_model: str | None = field(
        default=None,
        metadata={
            "help": "For the reward reward_model: folder or hub id of a sequence-classification model, or the address "
            "of a vLLM server that serves one (http://host:port), which reads text."
        },
    )
    reward_model_device: str = field(default="auto", metadata={"help": "auto: this process's GPU, else the CPU."})
    reward_model_dtype: str = field(default="auto", metadata={"help": "auto, float32, bfloat16 or float16."})
    reward_model_batch_size: int = field(default=16, metadata={"help": "Conversations of one forward pass."})
    judge_budget_tokens: float = field(
        default=0,
        metadata={"help": "For judge and judge_pairs: most tokens that it may take in a process; 0: no limit."},
    )
    judge_budget_usd: float = field(
        default=0, metadata={"help": "Most dollars that it may cost in a process, at the prices in .env; 0: no limit."}
    )
    judge_on_failure: str = field(
        default="stop", metadata={"help": "If the judge is gone: stop the run, or wait until it answers."}
    )
    judge_opponents: int = field(
        default=2, metadata={"help": "For the reward judge_pairs: responses of its group that each one meets."}
    )
    judge_force: bool = field(default=False, metadata={"help": "Use a judge that fails the check with known cases."})
    judge_cache: bool = field(default=True, metadata={"help": "Keep replies in the cache that rlfr-eval uses, too."})
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
class ToolOptions:
    """What the policy may call while it responds. TRL's max_tool_calling_iterations limits how often."""

    tools: list[str] = field(
        default_factory=list,
        metadata={"help": "Functions that the policy may call: calculator, or `path/to/module.py:function`."},
    )
    environment: str | None = field(
        default=None,
        metadata={
            "help": "A class with reset(**row), whose other methods the policy may call, with one object for each "
            "response: zoom, which shows a part of the image enlarged, or `path/to/module.py:Class`."
        },
    )
    rollout_function: str | None = field(
        default=None,
        metadata={"help": "TRL's rollout_func, which generates in place of the engine: `path/to/module.py:function`."},
    )


@dataclass
class HeldOutOptions:
    """Held-out rows and alerts; --eval_strategy and --eval_steps are transformers'."""

    eval_dataset_name: list[str] | None | str = field(  # noqa: RUF036  # transformers' parser needs None in second place
        default=None, metadata={"help": "Held-out rows, read as the training rows are; unset: dataset_name."}
    )
    eval_dataset_split: str = field(default="test", metadata={"help": "Their split."})
    eval_rows: int = field(default=256, metadata={"help": "Number of held-out rows, a fixed subset, that are used."})
    watch: bool = field(default=True, metadata={"help": "Print and record alerts about known training problems."})


@dataclass
class BenchmarkOptions:
    """Benchmarks that `rlfr-eval` measures saved checkpoints on while training; --save_steps is transformers'."""

    eval_benchmarks: list[str] | None = field(
        default=None,
        metadata={"help": "Benchmarks of rlfr-eval, text or multimodal, such as math500 MathVista_MINI; unset: none."},
    )
    eval_benchmark_steps: int = field(
        default=0, metadata={"help": "Measure checkpoints of these steps; 0: every one that is saved."}
    )
    eval_benchmark_limit: int = field(
        default=0, metadata={"help": "Only the first problems of each benchmark; 0: all."}
    )
    eval_benchmark_wait: bool = field(
        default=True,
        metadata={"help": "Training waits meanwhile; false: it goes on, for an evaluation on other GPUs."},
    )
    eval_benchmark_devices: str = field(
        default="", metadata={"help": "CUDA_VISIBLE_DEVICES of the evaluation; empty: those of training."}
    )
    eval_benchmark_args: str = field(
        default="",
        metadata={"help": "Further options of rlfr-eval, as one text: --eval_benchmark_args='--judge none'."},
    )
    eval_benchmark_best: bool = field(
        default=True,
        metadata={"help": "Keep the checkpoint that is best on the first benchmark, without eval_strategy."},
    )


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
class CurriculumOptions:
    """Prompts drawn by their running success rate."""

    curriculum_band: list[float] | None = field(
        default=None,
        metadata={
            "help": "Two success rates, such as 0.2 0.8: prompts whose running rate lies outside are drawn less "
            "often. Unset: all prompts in a shuffled order."
        },
    )
    curriculum_floor: float = field(
        default=0.1, metadata={"help": "Weight of a prompt outside of the band; in it, and before its first try, 1."}
    )
    curriculum_decay: float = field(
        default=0.5,
        metadata={"help": "Factor on a prompt's earlier responses whenever it comes again; 0: only the last count."},
    )
    curriculum_start: str | None = field(
        default=None,
        metadata={"help": "A file that rlfr sample wrote for the same data: its verdicts count as a first try."},
    )


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
class RunOptions(DataOptions, ModelOptions):
    """The policy and the rows of a command that does not train with rewards."""


@dataclass
class ScriptArguments(HeldOutOptions, BenchmarkOptions, ToolOptions, RewardOptions, RunOptions):
    """Settings of `rlfr train` besides `RLFRConfig`: policy, data, rewards by name, held-out rows, benchmarks,
    alerts.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_dataset_name is not None:
            self.eval_dataset_name = checked_names("eval_dataset_name", self.eval_dataset_name)
        check_ranges(self, SCRIPT_RANGES)


SCRIPT_RANGES = (
    ("overlong_buffer", 0, math.inf),
    ("grading_tolerance", 0, 1),
    ("eval_rows", 1, math.inf),
    ("eval_benchmark_steps", 0, math.inf),
    ("eval_benchmark_limit", 0, math.inf),
    ("reward_model_batch_size", 1, math.inf),
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


def reward_names(options: RewardOptions, method: str, dataset_name: str | list[str] = "") -> list[str]:
    """Names of the rewards of a run: those set, or the one of its method and data.

    Raises:
        UserError: the method is rlpr, and its reward is not the first one.

    >>> reward_names(RewardOptions(), "rlfr"), reward_names(RewardOptions(), "rlfr+rlpr")
    (['accuracy'], ['reference_probability'])
    >>> reward_names(RewardOptions(), "rlfr", "reasoning_gym:chain_sum")
    ['reasoning_gym']
    >>> reward_names(RewardOptions(), "rlfr", ["reasoning_gym:chain_sum", "digits"])  # it scores rows of tasks, too
    ['accuracy']
    """
    uses_rlpr = "rlpr" in method.split("+")
    tasks_alone = all(source.name.startswith("reasoning_gym:") for source in sources_of(dataset_name))
    by_data = "reasoning_gym" if tasks_alone else "accuracy"
    names = options.rewards if options.rewards is not None else ["reference_probability" if uses_rlpr else by_data]
    if uses_rlpr and names[:1] != ["reference_probability"]:
        raise UserError(
            f"method is {method!r}, but the first reward is {names[0] if names else None!r}; with rlpr the outcome is "
            "reference_probability. Put it first, or unset rewards."
        )
    return names


def method_parts(method: str) -> set[str]:
    """The parts of a method's name.

    Raises:
        UserError: a part is not known.
    """
    parts = method.split("+")
    for part in parts:
        if part not in METHOD_PARTS:
            raise UserError(
                f"method is {method!r}; choose one of {', '.join(METHODS)}, or join parts by +."
                f"{nearest(part, METHOD_PARTS)}"
            )
    return set(parts)
