"""The settings of a first configuration, each with the reason for its value."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from rlfr_vlm.options import DataOptions, method_parts
from rlfr_vlm.starting_config.data import DataFacts
from rlfr_vlm.starting_config.lengths import Limit
from rlfr_vlm.starting_config.model import ModelFacts
from rlfr_vlm.starting_config.sizes import ENGINE_SHARE, GENERATIONS, Batches, Fit, Machine, model_options

BOXED_PROMPT = r"Please reason step by step, and put your final answer within \boxed{}."
TAGS_PROMPT = (  # of RLPR
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think> <answer> answer here </answer>."
)
FLOW_FOLDER = "outputs/flow"
ROLLOUTS_OF_A_CHECKPOINT = 10


@dataclass(frozen=True)
class Setting:
    """One line of a configuration.

    Attributes:
        name: the key.
        value: the value, or an example of one.
        why: the reason, in a few words.
        is_set: whether the line counts; else it is a comment.
    """

    name: str
    value: Any
    why: str
    is_set: bool = True


@dataclass(frozen=True)
class Choices:
    """What a configuration is made of.

    Attributes:
        method: as `--method` takes it.
        model, data: what is known of them.
        data_options: how the data is read.
        system_prompt: None where the prompts ask for the format of the answer themselves.
        image: limit on the pixels of an image; None without images.
        prompt, response: limits in tokens.
        machine: the GPUs.
        fit: how the policy is held on them.
        batches: batch arithmetic.
    """

    method: str
    model: ModelFacts
    data: DataFacts
    data_options: DataOptions
    system_prompt: str | None
    image: Limit | None
    prompt: Limit
    response: Limit
    machine: Machine
    fit: Fit
    batches: Batches

    @property
    def parts(self) -> set[str]:
        """Parts of the method."""
        return method_parts(self.method)

    @property
    def not_looked_at(self) -> list[str]:
        """What could not be looked at, with the reason."""
        model, data = self.model, self.data
        reasons = {"config.json": model.no_config, "the tokenizer": model.no_tokenizer}
        parts = [
            f"{part} of {model.name}, because {reason}" for part, reason in reasons.items() if reason and model.name
        ]
        return [*parts, *([f"{data.name}, because {data.unread}"] if data.name and data.unread else [])]

    @property
    def output_dir(self) -> str:
        """Folder of the run."""
        model = PurePath(self.model.name).name or "policy"
        return f"outputs/{self.method.replace('+', '-')}-{model}"


def system_prompt_for(method: str, data: DataFacts) -> str | None:
    """Return the system prompt that asks for the format of the answer; None where all prompts ask for it."""
    if "rlpr" in method_parts(method):
        return None if data.asks_for_tags else TAGS_PROMPT
    return None if data.asks_for_format else BOXED_PROMPT


def settings_of(choices: Choices) -> list[list[Setting]]:
    """Return the settings by subject."""
    return [
        _model_and_data(choices),
        _method(choices),
        _lengths(choices),
        _batches(choices),
        _engine(choices),
        _optimiser(choices),
        _records(choices),
    ]


def _model_and_data(choices: Choices) -> list[Setting]:
    model, data, options = choices.model, choices.data, choices.data_options
    name = model.name or "path/to/policy"
    if model.family is None or model.config is None:
        why = "its config.json was not read" if model.name else "no --model is given"
    else:
        why = f"model_type {model.config.model_type}; {'takes' if model.takes_images else 'takes no'} images"
    settings = [Setting("model_name_or_path", name, why, bool(model.name))]
    if data.report is None:
        why = "not read" if data.name else "no --data is given"
    else:
        why = f"{data.number_of_rows} rows; of the first {data.report.rows}, {len(data.report.kept)} can be used"
    settings.append(Setting("dataset_name", data.name or "path/to/rows.jsonl", why, bool(data.name)))
    if options.dataset_split != "train":
        settings.append(Setting("dataset_split", options.dataset_split, "from --split"))
    if options.dataset_columns:
        settings.append(Setting("dataset_columns", options.dataset_columns, "from --columns"))
    return settings


def _method(choices: Choices) -> list[Setting]:
    settings = [Setting("method", choices.method, "from --method")]
    if "rlfr" in choices.parts:
        source = "the data's responses" if choices.data.responses else "the policy's own right responses"
        why = f"folder of the field, which is fitted first, on {source}:"
        settings.append(Setting("flow_path", FLOW_FOLDER, why))
    if "rlpr" in choices.parts:
        settings.append(Setting("rlpr_mode", "r1", "responses mark their answer by <think> and <answer> tags"))
    if choices.system_prompt is None:
        why = "not set: all prompts looked at ask for the format of the answer themselves"
        settings.append(Setting("system_prompt", BOXED_PROMPT, why, is_set=False))
    elif "rlpr" in choices.parts:
        settings.append(
            Setting("system_prompt", choices.system_prompt, "asks for the tags, without which RLPR gives 0")
        )
    else:
        why = "asks for a format that the grader reads; without an answer a response counts as wrong"
        settings.append(Setting("system_prompt", choices.system_prompt, why))
    return settings


def _lengths(choices: Choices) -> list[Setting]:
    settings = []
    if (image := choices.image) is not None:
        if image.value is not None:
            settings.append(Setting("image_max_pixels", image.value, image.why, image.is_set))
        else:
            settings.append(Setting("image_max_pixels", None, image.why, is_set=False))
    for name, limit in (("max_prompt_tokens", choices.prompt), ("max_completion_length", choices.response)):
        settings.append(Setting(name, limit.value, limit.why, limit.is_set))
    return settings


def _batches(choices: Choices) -> list[Setting]:
    batches, fit = choices.batches, choices.fit
    if fit.needed is None:
        why = "the most careful: the model's size is unknown"
    elif not fit.fits:
        why = f"the smallest, and too large still: {fit.needed / 1e9:.1f} GB of {choices.machine.memory:g}"
    elif batches.rows < fit.rows:
        why = "divides the responses of an update"
    else:
        why = f"the largest of 8, 4, 2 and 1 that fits {choices.machine.memory:g} GB, by `rlfr plan`"
    updates = f"{batches.updates} update{'s' * (batches.updates > 1)} from {batches.prompts} prompts"
    return [
        Setting("num_generations", GENERATIONS, "responses to a prompt, which GRPO compares; the papers' number"),
        Setting("per_device_train_batch_size", batches.rows, why),
        Setting("gradient_accumulation_steps", batches.accumulation, f"{batches.update} responses an update"),
        Setting("steps_per_generation", batches.accumulation * batches.updates, f"a rollout is {updates}"),
        Setting("pack_by_length", True, "less padding: responses of like length share a micro-batch"),
        Setting("gradient_checkpointing", True, "keeps one block's activations instead of all"),
        Setting("bf16", True, "computes in bfloat16; weights that are trained stay float32"),
        *_adapters(choices),
    ]


def _adapters(choices: Choices) -> list[Setting]:
    if not choices.fit.layout.lora:
        return []
    options = model_options(choices.model.name, choices.fit.layout)
    return [
        Setting("use_peft", True, "adapters, because training all weights does not fit the GPU"),
        Setting("lora_r", options.lora_r, "as in the LoRA recipe"),
        Setting("lora_alpha", options.lora_alpha, "as in the LoRA recipe"),
        Setting("dtype", options.dtype, "of the frozen weights; PEFT keeps the adapters in float32"),
    ]


def _engine(choices: Choices) -> list[Setting]:
    if choices.data.has_videos:
        return [Setting("rollout", "hf", "videos are generated for with transformers only")]
    if not choices.machine.vllm:
        why = "not set: vLLM or a GPU is missing here, so transformers generates, which is slower"
        return [Setting("rollout", "vllm-colocate", why, is_set=False)]
    settings = [
        Setting("rollout", "vllm-colocate", "vLLM is installed, and generates faster than transformers"),
        Setting("vllm_gpu_memory_utilization", ENGINE_SHARE, "share of the GPU for vLLM, as in the recipes"),
    ]
    if choices.prompt.is_set and choices.response.is_set:
        length = (choices.prompt.value or 0) + (choices.response.value or 0)
        settings.append(Setting("vllm_max_model_length", length, "prompt and response"))
    if choices.fit.layout.sleeps:
        why = "vLLM gives its memory back in updates, which would not fit beside it"
        settings.append(Setting("vllm_enable_sleep_mode", True, why))
    return settings


def _optimiser(choices: Choices) -> list[Setting]:
    lora = choices.fit.layout.lora
    rate = Setting("learning_rate", 1e-5, "adapters want ten times the papers' rate") if lora else None
    return [
        rate or Setting("learning_rate", 1e-6, "the papers' rate"),
        Setting("lr_scheduler_type", "cosine_with_min_lr", "as in the paper"),
        Setting("lr_scheduler_kwargs", {"min_lr_rate": 0.1}, "ends at a tenth of the rate"),
        Setting("warmup_steps", 0.03, "share of all updates"),
        Setting("num_train_epochs", 1, "passes over the data"),
        Setting("seed", 42, "of the order of rows and of sampling"),
    ]


def _records(choices: Choices) -> list[Setting]:
    rows, batches = choices.data.number_of_rows, choices.batches
    rollouts = ROLLOUTS_OF_A_CHECKPOINT
    if rows is not None:
        rollouts = max(1, min(rollouts, rows // batches.prompts // 2))
    named = f"{rollouts} rollouts" if rollouts > 1 else "one rollout"
    return [
        Setting("output_dir", choices.output_dir, "a folder holds one run"),
        Setting("save_strategy", "steps", "a checkpoint every save_steps updates"),
        Setting("save_steps", rollouts * batches.updates, f"{named}: checkpoints fall between rollouts"),
        Setting("save_total_limit", 3, "older checkpoints are removed"),
    ]
