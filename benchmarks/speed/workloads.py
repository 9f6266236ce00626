"""What step.py trains: the small policy on a CPU, or Qwen2.5-VL-3B and 7B with random weights on a GPU.

Time depends on shapes, not on what weights know: of the large ones architecture, prompt and response lengths are real,
and the weights, images and digits of the prompts are random. Responses are as long as they may be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

SIZES = ("small", "3b", "7b")
PATCH = 28  # pixels along a side of what becomes one image token


@dataclass(frozen=True)
class Workload:
    """A policy and what it is trained on.

    Attributes:
        name: its size.
        policy: builds it anew.
        arguments: of TRL's configuration, but for the folder and `max_steps`.
        depth: of the flow field.
    """

    name: str
    policy: Callable[[], Any]
    processor: Any
    rows: Any
    reward: Callable[..., list[float]]
    arguments: dict[str, Any]
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
    """Sizes of the language tower as the released configurations have them, and of the rows.

    Attributes:
        field_depth: RLFR's for this size.
        image: image tokens along a side; image tokens are part of the prompt.
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
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, tied=False, field_depth=6),
}


def choose(size: str, quick: bool) -> Workload:
    """The workload of a size; the large ones on a GPU."""
    return small(quick) if size == "small" else large(size, SHAPES[size], "cuda")


def small(quick: bool) -> Workload:
    """The quick start's policy, task and sizes; `quick` takes a policy that is trained in seconds, if not cached."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    from rlfr_vlm.data.load import load_rows
    from rlfr_vlm.quickstart.recipe import QuickstartRecipe
    from rlfr_vlm.quickstart.warm_start import cached_policy
    from rlfr_vlm.rewards import accuracy

    recipe = QuickstartRecipe()
    start = QuickstartRecipe.fast().warm_start if quick else recipe.warm_start
    folder = str(cached_policy(start)[0])
    arguments = recipe.rl_arguments("", "rlvr", seed=1)
    for own in ("output_dir", "method", "max_steps"):
        arguments.pop(own)
    return Workload(
        name="small", policy=lambda: Qwen2_5_VLForConditionalGeneration.from_pretrained(folder),
        processor=AutoProcessor.from_pretrained(folder), rows=load_rows("digits", limit=1024, seed=1),
        reward=accuracy, arguments=arguments, depth=4,
    )  # fmt: skip


def large(name: str, shape: Shape, device: str) -> Workload:
    """Random weights of a real shape; 16 responses an update, two updates a rollout."""
    processor = build_processor(shape)
    config = build_config(shape, processor.tokenizer)
    arguments: dict[str, Any] = {
        "num_generations": 8, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4,
        "steps_per_generation": 8, "max_completion_length": shape.response, "learning_rate": 1e-6,
        "generation_kwargs": {"min_new_tokens": shape.response}, "gradient_checkpointing": True,
        "bf16": device == "cuda", "use_cpu": device == "cpu", "seed": 1, "save_strategy": "no",
        # The moments of 7B do not fit beside it on one GPU; without them a step is shorter, and ratios are stricter.
        "optim": "sgd",
    }  # fmt: skip
    return Workload(
        name=name, policy=lambda: build_policy(config, device), processor=processor,
        rows=build_rows(shape, processor, 16), reward=every_other, arguments=arguments, depth=shape.field_depth,
    )  # fmt: skip


def every_other(completions: Sequence[Any], **_: Any) -> list[float]:
    """A reward that accepts half of every group, so that the field's update sees half of the responses.

    >>> every_other(["a", "b", "c"])
    [0.0, 1.0, 0.0]
    """
    return [float(number % 2) for number in range(len(completions))]


def build_processor(shape: Shape) -> Any:
    """Qwen2.5-VL's processor, whose tokenizer knows few of the ids that the policy can write."""
    from transformers import Qwen2VLImageProcessor

    from rlfr_vlm.quickstart.small_policy import build_processor

    processor: Any = build_processor(["What is in the picture?"], 290)
    pixels = (shape.image * PATCH) ** 2
    processor.image_processor = Qwen2VLImageProcessor(min_pixels=pixels, max_pixels=pixels)
    return processor


def build_config(shape: Shape, tokenizer: Any) -> Any:
    """The policy's configuration, with the special tokens of the tokenizer."""
    from transformers import Qwen2_5_VLConfig

    ids = tokenizer.convert_tokens_to_ids
    half = shape.hidden_size // shape.num_attention_heads // 2
    own = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size",
           "vocab_size")  # fmt: skip
    return Qwen2_5_VLConfig(
        text_config={
            **{name: getattr(shape, name) for name in own},
            "max_position_embeddings": 32768, "bos_token_id": None, "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "rope_parameters": {  # of a head's frequencies a quarter for time, the rest for height and width
                "rope_type": "default", "rope_theta": 1e6,
                "mrope_section": [half // 4, (half - half // 4) // 2, half - half // 4 - (half - half // 4) // 2],
            },
        },
        vision_config={**vars(shape.vision), "out_hidden_size": shape.hidden_size, "window_size": 112,
                       "tokens_per_second": 2},
        image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=shape.tied,
    )  # fmt: skip


def build_policy(config: Any, device: str) -> Any:
    """The policy with random weights; bfloat16 on a GPU, and without any weights on `meta`."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        policy = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)
    policy.generation_config.eos_token_id = config.text_config.eos_token_id
    policy.generation_config.pad_token_id = config.text_config.pad_token_id
    return policy


def build_rows(shape: Shape, processor: Any, count: int) -> Any:
    """Rows whose prompts have the shape's number of tokens: an image, and random digits of one token each."""
    import numpy as np
    from datasets import Dataset
    from PIL import Image

    from rlfr_vlm.data.prompts import build_messages

    random = np.random.default_rng(0)
    side = shape.image * PATCH
    bare = processor.apply_chat_template(build_messages("<image>", 1), add_generation_prompt=True)
    text = shape.prompt - shape.image**2 - len(processor.tokenizer(bare)["input_ids"]) + 1  # its placeholder counts
    prompts = ["<image>" + "".join(map(str, random.integers(0, 10, text))) for _ in range(count)]
    images = [Image.fromarray(random.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count)]

    def opened(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        numbers = batch["number"]
        return {"prompt": [build_messages(prompts[number], 1) for number in numbers],
                "images": [[images[number]] for number in numbers]}  # fmt: skip

    return Dataset.from_dict({"number": list(range(count))}).with_transform(opened)
