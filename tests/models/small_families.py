"""Tiny random policies and processors of every family, built from transformers' config classes without a hub.

Every policy has four decoder blocks of width 32 and its family's own vision tower. Every tokenizer is a byte-level BPE
without merges, with the family's special tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 48,
    "max_position_embeddings": 4096,
}
SIGLIP = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
GLM_TOKENS = ("<|image|>", "<|begin_of_image|>", "<|end_of_image|>", "<|video|>", "<|begin_of_video|>",
              "<|end_of_video|>")  # fmt: skip
GLM_IMAGE = "<|begin_of_image|><|image|><|end_of_image|>"
ROPE = {"rope_type": "default", "rope_theta": 1e4}
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}IMAGE{%- elif part['type'] == 'video' -%}VIDEO"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>\n{% endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)


@dataclass(frozen=True)
class Family:
    """How to build one family.

    Attributes:
        model_type: of its config.
        processor: name of its processor class; empty for a text-only policy.
        image_processor: name of its image processor class, and its arguments.
        image: text of an image in the chat template.
        tokens: special tokens besides those of the chat format.
        named: names under which the tokenizer has some of them.
        arguments: further arguments of the processor.
        config: makes the arguments of the config from token ids.
        text: arguments of the text config besides `TEXT`.
        text_type: model type of the text config, where the family takes several.
        video_processor: name of its video processor class, without which some processors cannot be built.
    """

    model_type: str
    processor: str = ""
    image_processor: tuple[str, dict[str, Any]] = ("", {})
    image: str = ""
    tokens: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    config: Callable[[Callable[[str], int]], dict[str, Any]] = lambda ids: {}
    text: dict[str, Any] = field(default_factory=dict)
    text_type: str = ""
    video_processor: str = ""


def qwen_config(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_id": ids("<|image_pad|>"),
        "video_token_id": ids("<|video_pad|>"),
        "vision_start_token_id": ids("<|vision_start|>"),
        "vision_end_token_id": ids("<|vision_end|>"),
    }


def qwen3_vision(**changes: object) -> dict[str, Any]:
    return {
        "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
        "num_position_embeddings": 16,
    } | changes  # fmt: skip


def glm_config(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_id": ids("<|image|>"), "video_token_id": ids("<|video|>"),
        "image_start_token_id": ids("<|begin_of_image|>"), "image_end_token_id": ids("<|end_of_image|>"),
        "video_start_token_id": ids("<|begin_of_video|>"), "video_end_token_id": ids("<|end_of_video|>"),
        "vision_config": {
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
            "model_type": "glm4v_vision",
        },
    }  # fmt: skip


def idefics_config(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_id": ids("<image>"), "pad_token_id": ids("<|endoftext|>"), "scale_factor": 2,
        "vision_config": SIGLIP | {"image_size": 32, "patch_size": 8},
    }  # fmt: skip


def llava_config(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_index": ids("<image>"),
        "vision_config": SIGLIP | {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14,
                                   "num_hidden_layers": 2, "projection_dim": 16},
    }  # fmt: skip


def mistral3_config(ids: Callable[[str], int]) -> dict[str, Any]:
    return {
        "image_token_index": ids("[IMG]"), "spatial_merge_size": 2, "vision_feature_layer": -1,
        "vision_config": SIGLIP | {"model_type": "pixtral", "image_size": 112, "patch_size": 14, "head_dim": 8},
    }  # fmt: skip


MROPE = {"rope_parameters": ROPE | {"mrope_section": [2, 3, 3]}}
QWEN3_ROPE = {"rope_parameters": ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True}}
QWEN_IMAGES = ("Qwen2VLImageProcessor", {"size": {"shortest_edge": 28 * 28, "longest_edge": 16 * 28 * 28}})
QWEN3_IMAGES = (
    "Qwen2VLImageProcessor",
    {"patch_size": 16, "size": {"shortest_edge": 32 * 32, "longest_edge": 16 * 32 * 32}},
)
GLM_SIZE = {"size": {"shortest_edge": 2 * 28 * 28, "longest_edge": 32 * 28 * 28}}  # pixels of two frames
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"] * 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 2,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
IDEFICS_SIZE = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
IDEFICS_TOKENS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>",
                  *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)))  # fmt: skip

VISION: dict[str, Family] = {
    "Qwen2-VL": Family(
        "qwen2_vl", "Qwen2VLProcessor", QWEN_IMAGES, QWEN_IMAGE, QWEN_TOKENS,
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        config=lambda ids: qwen_config(ids) | {
            "vision_config": {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32}},
        text=MROPE, video_processor="Qwen2VLVideoProcessor",
    ),
    "Qwen2.5-VL": Family(
        "qwen2_5_vl", "Qwen2_5_VLProcessor", QWEN_IMAGES, QWEN_IMAGE, QWEN_TOKENS,
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        config=lambda ids: qwen_config(ids) | {
            "vision_config": {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16,
                              "out_hidden_size": 32, "window_size": 112, "fullatt_block_indexes": [0]}},
        text=MROPE, video_processor="Qwen2VLVideoProcessor",
    ),
    "Qwen3-VL": Family(
        "qwen3_vl", "Qwen3VLProcessor", QWEN3_IMAGES, QWEN_IMAGE, QWEN_TOKENS,
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
         "vision_eos_token": "<|vision_end|>"},
        config=lambda ids: qwen_config(ids) | {"vision_config": qwen3_vision(deepstack_visual_indexes=[0, 1])},
        text=QWEN3_ROPE, video_processor="Qwen3VLVideoProcessor",
    ),
    "Qwen3-VL-MoE": Family(
        "qwen3_vl_moe", "Qwen3VLProcessor", QWEN3_IMAGES, QWEN_IMAGE, QWEN_TOKENS,
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
         "vision_eos_token": "<|vision_end|>"},
        config=lambda ids: qwen_config(ids) | {"vision_config": qwen3_vision(deepstack_visual_indexes=[0, 1])},
        text=QWEN3_ROPE | MOE, video_processor="Qwen3VLVideoProcessor",
    ),
    "Qwen3.5": Family(
        "qwen3_5", "Qwen3VLProcessor", QWEN3_IMAGES, QWEN_IMAGE, QWEN_TOKENS,
        {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "vision_bos_token": "<|vision_start|>",
         "vision_eos_token": "<|vision_end|>"},
        config=lambda ids: qwen_config(ids) | {"vision_config": qwen3_vision()},
        text={"rope_parameters": ROPE | {"mrope_section": [4, 2, 2], "mrope_interleaved": True,
                                         "partial_rotary_factor": 1.0}} | LINEAR_ATTENTION,
        video_processor="Qwen3VLVideoProcessor",
    ),
    "InternVL": Family(
        "internvl", "InternVLProcessor",
        ("GotOcr2ImageProcessor", {"size": {"height": 28, "width": 28}, "crop_to_patches": True, "max_patches": 4}),
        "<IMG_CONTEXT>", ("<IMG_CONTEXT>", "<img>", "</img>", "<video>"),
        {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
         "video_token": "<video>"},
        {"image_seq_length": 1},
        config=lambda ids: {
            "image_token_id": ids("<IMG_CONTEXT>"), "image_seq_length": 1,
            "vision_config": SIGLIP | {"image_size": [28, 28], "patch_size": [14, 14]}},
        text_type="qwen2", video_processor="InternVLVideoProcessor",
    ),
    "Gemma 3": Family(
        "gemma3", "Gemma3Processor", ("Gemma3ImageProcessor", {"size": {"height": 28, "width": 28}}),
        "<start_of_image>", ("<image_soft_token>", "<start_of_image>", "<end_of_image>"),
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
        {"image_seq_length": 4},
        config=lambda ids: {
            "image_token_index": ids("<image_soft_token>"), "boi_token_index": ids("<start_of_image>"),
            "eoi_token_index": ids("<end_of_image>"), "mm_tokens_per_image": 4,
            "vision_config": SIGLIP | {"image_size": 28, "patch_size": 7}},
        text={"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "Gemma 4": Family(
        "gemma4", "Gemma4Processor",
        ("Gemma4ImageProcessor", {"patch_size": 8, "max_soft_tokens": 70, "pooling_kernel_size": 3}),
        "<|image|>", ("<|image|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>", "<|video|>"),
        {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
         "boa_token": "<|audio>", "eoa_token": "<audio|>"},
        config=lambda ids: {
            "image_token_id": ids("<|image|>"), "boi_token_id": ids("<|image>"), "eoi_token_id": ids("<image|>"),
            "video_token_id": ids("<|video|>"), "audio_token_id": ids("<|audio|>"), "boa_token_id": ids("<|audio>"),
            "eoa_token_index": ids("<audio|>"), "audio_config": None,
            "vision_config": SIGLIP | {"num_key_value_heads": 2, "head_dim": 8, "patch_size": 8,
                                       "position_embedding_size": 64}},
        text={"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2,
              "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 300, "global_head_dim": 16},
        video_processor="Gemma4VideoProcessor",
    ),
    "SmolVLM": Family(
        "smolvlm", "SmolVLMProcessor", ("SmolVLMImageProcessor", IDEFICS_SIZE), "<image>",
        (*IDEFICS_TOKENS, "<video>"), {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
                                       "global_image_token": "<global-img>", "video_token": "<video>"},
        {"image_seq_len": 4}, config=idefics_config, text_type="llama", video_processor="SmolVLMVideoProcessor",
    ),
    "Idefics3": Family(
        "idefics3", "Idefics3Processor", ("Idefics3ImageProcessor", IDEFICS_SIZE), "<image>", IDEFICS_TOKENS, {},
        {"image_seq_len": 4}, config=idefics_config, text_type="llama",
    ),
    "LLaVA": Family(
        "llava", "LlavaProcessor",
        ("LlavaImageProcessor", {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}),
        "<image>", ("<image>",), {"image_token": "<image>"},
        {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        config=lambda ids: llava_config(ids) | {"image_seq_length": 4}, text_type="llama",
    ),
    "LLaVA-NeXT": Family(
        "llava_next", "LlavaNextProcessor",
        ("LlavaNextImageProcessor", {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28},
                                     "image_grid_pinpoints": PINPOINTS}),
        "<image>", ("<image>",), {"image_token": "<image>"},
        {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        config=lambda ids: llava_config(ids) | {"image_seq_length": 4, "image_grid_pinpoints": PINPOINTS},
        text_type="mistral",
    ),
    "LLaVA-OneVision": Family(
        "llava_onevision", "LlavaOnevisionProcessor",
        ("LlavaOnevisionImageProcessor", {"size": {"height": 28, "width": 28}, "image_grid_pinpoints": PINPOINTS}),
        "<image>", ("<image>", "<video>"), {"image_token": "<image>", "video_token": "<video>"},
        {"num_image_tokens": 4, "vision_feature_select_strategy": "full"},
        config=lambda ids: {
            "image_token_index": ids("<image>"), "video_token_index": ids("<video>"),
            "image_grid_pinpoints": PINPOINTS, "vision_feature_select_strategy": "full",
            "vision_config": SIGLIP | {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14}},
        text_type="qwen2", video_processor="LlavaOnevisionVideoProcessor",
    ),
    "Mistral 3": Family(
        "mistral3", "PixtralProcessor",
        ("PixtralImageProcessor", {"size": {"longest_edge": 112}, "patch_size": {"height": 14, "width": 14}}),
        "[IMG]", ("[IMG]", "[IMG_BREAK]", "[IMG_END]"), {}, {"patch_size": 14, "spatial_merge_size": 2},
        config=mistral3_config, text_type="mistral",
    ),
    "Pixtral": Family(
        "llava", "PixtralProcessor",
        ("PixtralImageProcessor", {"size": {"longest_edge": 56}, "patch_size": {"height": 14, "width": 14}}),
        "[IMG]", ("[IMG]", "[IMG_BREAK]", "[IMG_END]"), {}, {"patch_size": 14},
        config=lambda ids: {
            "image_token_index": ids("[IMG]"), "vision_feature_layer": -1, "vision_feature_select_strategy": "full",
            "image_seq_length": 1,
            "vision_config": SIGLIP | {"model_type": "pixtral", "image_size": 112, "patch_size": 14, "head_dim": 8}},
        text_type="mistral",
    ),
    "GLM-4.1V": Family(
        "glm4v", "Glm4vProcessor", ("Glm4vImageProcessor", GLM_SIZE), GLM_IMAGE, GLM_TOKENS,
        {"image_token": "<|image|>", "video_token": "<|video|>"}, config=glm_config, text=MROPE,
        video_processor="Glm4vVideoProcessor",
    ),
    "GLM-4.6V": Family(
        "glm46v", "Glm46VProcessor", ("Glm46VImageProcessor", GLM_SIZE), GLM_IMAGE, GLM_TOKENS,
        {"image_token": "<|image|>", "video_token": "<|video|>"}, config=glm_config, text=MROPE,
        text_type="glm4v_text", video_processor="Glm46VVideoProcessor",
    ),
    "LFM2-VL": Family(
        "lfm2_vl", "Lfm2VlProcessor",
        ("Lfm2VlImageProcessor", {"tile_size": 64, "max_image_tokens": 16, "min_image_tokens": 4, "max_tiles": 4}),
        "<image>", ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>",
                    *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5))),
        {"image_token": "<image>", "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>",
         "image_thumbnail_token": "<|img_thumbnail|>"},
        config=lambda ids: {
            "image_token_id": ids("<image>"), "downsample_factor": 2, "projector_hidden_size": 16,
            "vision_config": SIGLIP | {"model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 16}},
        text={"layer_types": ["conv", "full_attention"] * 2, "block_auto_adjust_ff_dim": False}, text_type="lfm2",
    ),
}  # fmt: skip

TEXTS: dict[str, Family] = {
    "Llama": Family("llama"),
    "Qwen2": Family("qwen2"),
    "Qwen3": Family("qwen3"),
    "Qwen3-MoE": Family("qwen3_moe", text=MOE),
    "Mistral": Family("mistral"),
    "Phi-3": Family("phi3"),
    "Phi": Family("phi"),
    "Gemma 2": Family("gemma2"),
    "Gemma 3 (text)": Family("gemma3_text"),
    "OLMo2": Family("olmo2"),
    "Granite": Family("granite"),
    "SmolLM3": Family("smollm3"),
    "GLM-4": Family("glm4"),
    "GPT-OSS": Family("gpt_oss", text={"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16}),
    "Gemma": Family("gemma"),
    "Gemma 4 (text)": Family("gemma4_text", text=VISION["Gemma 4"].text),
    "OLMo3": Family("olmo3"),
    "Ministral 3": Family("ministral3"),
    "LFM2": Family("lfm2", text=VISION["LFM2-VL"].text),
    "Qwen3.5 (text)": Family("qwen3_5_text", text=VISION["Qwen3.5"].text),
    "Qwen3-Next": Family(
        "qwen3_next",
        text=MOE | LINEAR_ATTENTION | {"shared_expert_intermediate_size": 16},
    ),
    "Qwen2-MoE": Family("qwen2_moe", text=MOE | {"shared_expert_intermediate_size": 16}),
    "Mixtral": Family("mixtral", text={"num_local_experts": 4, "num_experts_per_tok": 2}),
    "GLM": Family("glm"),
    "GLM-4-MoE": Family(
        "glm4_moe",
        text={
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        },
    ),
    "Cohere2": Family("cohere2", text={"sliding_window": 16}),
    "Ernie 4.5": Family("ernie4_5"),
    "Seed-OSS": Family("seed_oss"),
    "GPT-2": Family("gpt2", text={"n_inner": 48}),
    "GPT-NeoX": Family("gpt_neox"),
    "Falcon": Family("falcon", text={"head_dim": None}),
    "OPT": Family("opt", text={"ffn_dim": 48, "word_embed_proj_dim": 32}),
}


# Families whose whole run is in every run of the tests; the others' are slow tests.
EVERY_RUN = (
    "Qwen3-VL",
    "InternVL",
    "SmolVLM",
    "Mistral 3",
    "GPT-2",
)


def build_tokenizer(family: Family) -> Any:
    """A byte-level tokenizer with the family's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *family.tokens]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet), special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left",
        extra_special_tokens=family.named,
        chat_template=TEMPLATE.replace("IMAGE", family.image).replace("VIDEO", QWEN_VIDEO),
    )  # fmt: skip


def build_processor(family: Family) -> Any:
    """The family's processor, or for a text-only policy its tokenizer."""
    import transformers

    tokenizer = build_tokenizer(family)
    if not family.processor:
        return tokenizer
    if family.model_type == "smolvlm":
        from transformers.models.smolvlm import processing_smolvlm

        # transformers asks for the package num2words, which only prompts of videos use
        processing_smolvlm.num2words = processing_smolvlm.num2words or str
    name, arguments = family.image_processor
    parts: dict[str, Any] = {"image_processor": getattr(transformers, name)(**arguments), "tokenizer": tokenizer}
    if family.video_processor:
        parts["video_processor"] = getattr(transformers, family.video_processor)()
    if family.model_type == "gemma4":
        parts["feature_extractor"] = transformers.Gemma4AudioFeatureExtractor()
    processor_class = getattr(transformers, family.processor)
    return processor_class(**parts, chat_template=tokenizer.chat_template, **family.arguments)


def wide(family: Family) -> Family:
    """The family with heads of 32, which vLLM's attention on a CPU wants, in blocks of width 128."""
    sizes = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32}

    def config(ids: Callable[[str], int]) -> dict[str, Any]:
        narrow = family.config(ids)
        vision = narrow["vision_config"]
        out = {"out_hidden_size": 128} if "out_hidden_size" in vision else {}
        return narrow | {"vision_config": vision | {"hidden_size": 64} | out}

    text = family.text | sizes
    if "mrope_section" in text.get("rope_parameters", {}):
        text["rope_parameters"] = text["rope_parameters"] | {"mrope_section": [8, 4, 4]}
    return replace(family, config=config, text=text)


def build_policy(family: Family, processing_class: Any, seed: int = 0) -> Any:
    """A random policy of the family in float32 on the CPU, in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    text = TEXT | {
        "vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    } | family.text  # fmt: skip
    if not family.processor:
        text = {key: value for key, value in text.items() if value is not None or key == "bos_token_id"}
        config = AutoConfig.for_model(family.model_type, **text)
        model_class = AutoModelForCausalLM
    else:
        text |= {"model_type": family.text_type} if family.text_type else {}
        own = family.config(tokenizer.convert_tokens_to_ids)
        config = AutoConfig.for_model(family.model_type, text_config=text, **own)
        model_class = AutoModelForImageTextToText
    torch.manual_seed(seed)
    policy = model_class.from_config(config).eval()
    policy.generation_config.eos_token_id = tokenizer.eos_token_id
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    return policy


def built(family: Family) -> SimpleNamespace:
    """Processor and policy of a family."""
    processing_class = build_processor(family)
    return SimpleNamespace(processor=processing_class, policy=build_policy(family, processing_class))


def prefer(policy: Any, tokens: list[int]) -> None:
    """Give `tokens` logits that are 100 above those of all others, by one direction of the last hidden state."""
    import torch

    from rlfr_vlm.models.towers import find_language_tower

    head = policy.get_output_embeddings()
    with torch.no_grad():
        head.weight = torch.nn.Parameter(head.weight.detach().clone())  # untie
        head.weight[:, 0] = 0
        head.weight[tokens, 0] = 12
    direction = torch.zeros(32)
    direction[0] = 10

    def push(_module: object, _inputs: object, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state + direction
        return output

    find_language_tower(policy).module.register_forward_hook(push)
