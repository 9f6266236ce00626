"""A small Qwen2.5-VL (image tokens, M-RoPE, window attention) with random weights, and its tokenizer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_vlm.models.qwen_vl import VISION_TOKENS
from rlfr_vlm.pretrained.qwen_processor import CHAT_TEMPLATE, image_processors

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *VISION_TOKENS]


@dataclass(frozen=True)
class PolicySize:
    """Sizes of the small policy: 1.06M parameters by default."""

    vocab_size: int = 300
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    intermediate_size: int = 384
    vision_hidden_size: int = 64
    vision_depth: int = 1


def build_tokenizer(corpus: list[str], vocab_size: int) -> "PreTrainedTokenizerFast":
    """Train a byte-level BPE tokenizer on `corpus`, with single digits and Qwen's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )


def build_processor(corpus: list[str], vocab_size: int) -> "ProcessorMixin":
    """Build Qwen2.5-VL's processor with the small tokenizer."""
    from transformers import Qwen2_5_VLProcessor

    tokenizer = build_tokenizer(corpus, vocab_size)
    return Qwen2_5_VLProcessor(tokenizer=tokenizer, chat_template=CHAT_TEMPLATE, **image_processors())


def build_policy(processor: "ProcessorMixin", size: PolicySize = PolicySize(), seed: int = 0) -> "PreTrainedModel":
    """Build a Qwen2.5-VL with random weights for `processor`, in float32 on the CPU."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = processor.tokenizer.convert_tokens_to_ids
    head_dim = size.hidden_size // size.num_heads
    quarter = head_dim // 8
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": size.hidden_size,
            "num_hidden_layers": size.num_layers,
            "num_attention_heads": size.num_heads,
            "num_key_value_heads": size.num_heads // 2,
            "intermediate_size": size.intermediate_size,
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [quarter, head_dim // 2 - 2 * quarter - quarter // 2, quarter + quarter // 2],
            },
            "bos_token_id": None,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
        },
        vision_config={
            "depth": size.vision_depth,
            "hidden_size": size.vision_hidden_size,
            "intermediate_size": 2 * size.vision_hidden_size,
            "num_heads": 4,
            "out_hidden_size": size.hidden_size,
            "window_size": 112,
            "fullatt_block_indexes": [size.vision_depth - 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    policy = Qwen2_5_VLForConditionalGeneration(config)
    policy.generation_config.eos_token_id = ids("<|im_end|>")
    policy.generation_config.pad_token_id = ids("<|endoftext|>")
    return policy
