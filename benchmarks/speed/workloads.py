"""Policies and data for step.py: the small policy on a CPU, Qwen2.5-VL-3B and 7B with random weights on a GPU.

`tiny` is the code of the large ones on a CPU, with sizes that measure nothing.

Time depends on shapes and not on the values of weights: the large workloads have the real architecture and realistic
prompt and response lengths, but random weights, images and prompts. Responses always have the maximum length.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

SIZES = ("small", "tiny", "3b", "7b")
GPU_SIZES = ("3b", "7b")
PATCH = 28  # pixels along a side of one image token


@dataclass(frozen=True)
class Workload:
    """A policy and its training data.

    Attributes:
        name: size of the policy.
        policy: builds a new policy.
        processor: the policy's processor.
        rows: training rows.
        reward: reward function.
        arguments: keyword arguments of TRL's configuration without the output folder and `max_steps`.
        depth: depth of the flow field.
    """

    name: str
    policy: "Callable[[], PreTrainedModel]"
    processor: "ProcessorMixin"
    rows: "Dataset"
    reward: Callable[..., list[float | None]]
    arguments: dict[str, object]
    depth: int


@dataclass(frozen=True)
class VisionShape:
    """Qwen2.5-VL's vision tower, the same at 3B and 7B."""

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)


@dataclass(frozen=True)
class Shape:
    """Sizes of the language tower, from the released configurations, and of the rows.

    Attributes:
        tied: whether input and output embeddings are tied.
        field_depth: depth of the flow field in RLFR's settings for this size.
        prompt: prompt tokens, including image tokens.
        response: response tokens.
        image: image tokens along a side.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    field_depth: int
    vision: VisionShape = field(default_factory=VisionShape)
    prompt: int = 1024
    response: int = 512
    image: int = 28


SHAPES = {
    "3b": Shape(2048, 36, 16, 2, 11008, 151936, tied=True, field_depth=4),
    "tiny": Shape(
        64, 4, 2, 1, 96, 512, tied=False, field_depth=1, vision=VisionShape(1, 32, 64, 2, (0,)),
        prompt=40, response=6, image=2,
    ),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, tied=False, field_depth=6),
}  # fmt: skip


def build_workload(size: str, quick: bool = False, layers: int | None = None, response: int | None = None) -> Workload:
    """Build the workload of a size; 3b and 7b need a GPU.

    Args:
        quick: of `small`: a policy that is warm-started in seconds.
        layers: decoder blocks in place of the size's own.
        response: response tokens in place of the size's own.
    """
    if size == "small":
        return small(quick)
    changes = {name: value for name, value in (("num_hidden_layers", layers), ("response", response)) if value}
    return large(size, replace(SHAPES[size], **changes), "cuda" if size in GPU_SIZES else "cpu")


def small(quick: bool) -> Workload:
    """Policy, task and sizes of the quick start; `quick` uses a policy that is warm-started in seconds."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from rlfr_vlm.data.load import load_rows
    from rlfr_vlm.quickstart.recipe import recipe_for
    from rlfr_vlm.quickstart.warm_start import cached_policy
    from rlfr_vlm.rewards import accuracy

    recipe = recipe_for("tiny")
    warm_start = recipe_for("tiny", fast=quick).warm_start
    folder = str(cached_policy(warm_start)[0])
    arguments = recipe.rl_arguments("", "rlvr", seed=1)
    for name in ("output_dir", "method", "max_steps", "flow_gate"):  # the last one is none of TRL's
        arguments.pop(name)
    return Workload(
        name="small",
        policy=lambda: Qwen2_5_VLForConditionalGeneration.from_pretrained(folder),
        processor=AutoProcessor.from_pretrained(folder),
        rows=load_rows("digits", limit=1024, seed=1),
        reward=accuracy,
        arguments=arguments,
        depth=4,
    )


def large(name: str, shape: Shape, device: str) -> Workload:
    """Random weights of a given shape; 16 responses per update, two updates per rollout."""
    processor = build_processor(shape)
    config = build_config(shape, processor.tokenizer)
    arguments: dict[str, object] = {
        "num_generations": 8,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 8,
        "max_completion_length": shape.response,
        "learning_rate": 1e-6,
        "generation_kwargs": {"min_new_tokens": shape.response},
        "gradient_checkpointing": True,
        "bf16": device == "cuda",
        "use_cpu": device == "cpu",
        "seed": 1,
        "save_strategy": "no",
        # AdamW's moments of 7B do not fit on one GPU. Without them steps are shorter, which makes the ratios stricter.
        "optim": "sgd",
    }
    return Workload(
        name=name,
        policy=lambda: build_policy(config, device),
        processor=processor,
        rows=build_rows(shape, processor, 16),
        reward=every_other,
        arguments=arguments,
        depth=shape.field_depth,
    )


def every_other(completions: Sequence[object], **_: object) -> list[float | None]:
    """Reward every second response, so that the field is updated on half of the responses.

    >>> every_other(["a", "b", "c"])
    [0.0, 1.0, 0.0]
    """
    return [float(number % 2) for number in range(len(completions))]


def build_processor(shape: Shape) -> "ProcessorMixin":
    """Build Qwen2.5-VL's processor with a small tokenizer, which cannot decode most of the policy's token ids."""
    from transformers import Qwen2VLImageProcessor

    from rlfr_vlm.quickstart.small_policy import build_processor

    processor = build_processor(["What is in the picture?"], 290)
    pixels = (shape.image * PATCH) ** 2
    processor.image_processor = Qwen2VLImageProcessor(min_pixels=pixels, max_pixels=pixels)
    return processor


def build_config(shape: Shape, tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedConfig":
    """Build the policy's configuration with the special tokens of the tokenizer."""
    from transformers import Qwen2_5_VLConfig

    ids = tokenizer.convert_tokens_to_ids
    half = shape.hidden_size // shape.num_attention_heads // 2
    sizes = (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
    )
    return Qwen2_5_VLConfig(
        text_config={
            **{name: getattr(shape, name) for name in sizes},
            "max_position_embeddings": 32768,
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                # a quarter of a head's frequencies for time, the rest for height and width
                "mrope_section": [half // 4, (half - half // 4) // 2, half - half // 4 - (half - half // 4) // 2],
            },
        },
        vision_config={
            **vars(shape.vision),
            "out_hidden_size": shape.hidden_size,
            "window_size": 112,
            "tokens_per_second": 2,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=shape.tied,
    )


def build_policy(config: "PreTrainedConfig", device: str) -> "PreTrainedModel":
    """Build the policy with random weights: float32 on a CPU, otherwise bfloat16; `meta` allocates no weights."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    config = copy.deepcopy(config)  # a trainer turns its cache off, which the next policy's generation would read
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        policy = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)
    policy.generation_config.eos_token_id = config.text_config.eos_token_id
    policy.generation_config.pad_token_id = config.text_config.pad_token_id
    return policy


def build_rows(shape: Shape, processor: "ProcessorMixin", count: int) -> "Dataset":
    """Build rows whose prompts have `shape.prompt` tokens: an image and random digits of one token each."""
    import numpy as np
    from datasets import Dataset
    from PIL import Image

    from rlfr_vlm.data.prompts import build_messages

    random = np.random.default_rng(0)
    side = shape.image * PATCH
    bare = processor.apply_chat_template(build_messages("<image>", 1), add_generation_prompt=True)
    # The template has one token for the image placeholder.
    text_tokens = shape.prompt - shape.image**2 - len(processor.tokenizer(bare)["input_ids"]) + 1
    prompts = ["<image>" + "".join(map(str, random.integers(0, 10, text_tokens))) for _ in range(count)]
    images = [Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count)]

    def read_rows(batch: dict[str, list[int]]) -> dict[str, list[object]]:
        indices = batch["index"]
        return {
            "prompt": [build_messages(prompts[index], 1) for index in indices],
            "images": [[images[index]] for index in indices],
        }

    return Dataset.from_dict({"index": list(range(count))}).with_transform(read_rows)
