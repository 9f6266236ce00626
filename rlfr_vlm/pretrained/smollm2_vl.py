"""SmolLM2 as the language tower of a Qwen2.5-VL: a policy of 140M parameters that reads and sees, without a hub.

Llama's attention is Qwen2's with zero biases, and M-RoPE gives text the positions of RoPE, so SmolLM2's weights fit
the language tower of Qwen2.5-VL as they are: logits of text are equal. The vision tower is new and learns to see in
`eyes.py`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.models.qwen_vl import VISION_TOKENS
from rlfr_vlm.pretrained.qwen_processor import CHAT_TEMPLATE, image_processors

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

MROPE_SECTION = (8, 12, 12)  # rotary frequencies for time, height and width: half of a head of width 64
VISION_TOWER = {"depth": 4, "hidden_size": 256, "intermediate_size": 512, "num_heads": 4}


def with_vision_tower(smollm2: Path, seed: int = 0) -> "tuple[ProcessorMixin, PreTrainedModel]":
    """Return the processor and the policy: SmolLM2's language tower and a vision tower with random weights.

    Args:
        smollm2: folder of `get_smollm2`, or of another Llama whose heads have width 64 and whose embedding is tied.
        seed: of the vision tower's weights.
    """
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM, Qwen2_5_VLForConditionalGeneration

    language = LlamaForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    processor = build_processor(AutoTokenizer.from_pretrained(smollm2, padding_side="left"))
    torch.manual_seed(seed)
    policy = Qwen2_5_VLForConditionalGeneration(_config(language.config, processor))
    _copy_language(language, policy)
    policy.generation_config.eos_token_id = policy.config.text_config.eos_token_id
    policy.generation_config.pad_token_id = policy.config.text_config.pad_token_id
    return processor, policy


def build_processor(tokenizer: "PreTrainedTokenizerBase") -> "ProcessorMixin":
    """Return Qwen2.5-VL's processor with a tokenizer of another family, to which the vision tokens are added."""
    from transformers import Qwen2_5_VLProcessor

    tokenizer.add_special_tokens({"extra_special_tokens": list(VISION_TOKENS)}, replace_extra_special_tokens=False)
    return Qwen2_5_VLProcessor(tokenizer=tokenizer, chat_template=CHAT_TEMPLATE, **image_processors())


def _config(llama: "LlamaConfig", processor: "ProcessorMixin") -> object:
    """Return the configuration of a Qwen2.5-VL whose language tower has the sizes of a Llama."""
    from transformers import Qwen2_5_VLConfig

    same = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    same += ["max_position_embeddings", "rms_norm_eps", "hidden_act", "bos_token_id", "eos_token_id", "pad_token_id"]
    ids = processor.tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            **{name: getattr(llama, name) for name in same},
            "vocab_size": len(processor.tokenizer),
            "rope_parameters": {**llama.rope_parameters, "mrope_section": list(MROPE_SECTION)},
        },
        vision_config={
            **VISION_TOWER,
            "out_hidden_size": llama.hidden_size,
            "window_size": 112,
            "fullatt_block_indexes": [VISION_TOWER["depth"] - 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _copy_language(language: "LlamaForCausalLM", policy: "PreTrainedModel") -> None:
    """Copy a Llama's weights; biases become zero, and new tokens get the mean embedding.

    Raises:
        RuntimeError: a weight of the language tower has no counterpart.
    """
    import torch

    tower = policy.model.language_model
    weights = dict(language.model.state_dict())
    known = weights.pop("embed_tokens.weight")
    missing, unexpected = tower.load_state_dict(weights, strict=False)
    biases = [name for name in missing if name.endswith("_proj.bias")]
    lacking = sorted(set(missing) - {*biases, "embed_tokens.weight"})
    if unexpected or lacking:
        raise RuntimeError(f"the weights do not fit: {unexpected} have no place, {lacking} are missing")
    with torch.no_grad():
        for name in biases:
            tower.get_parameter(name).zero_()
        tower.embed_tokens.weight[: len(known)] = known
        tower.embed_tokens.weight[len(known) :] = known.mean(dim=0)
    policy.tie_weights()
