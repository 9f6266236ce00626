"""Weights of the language tower in 4 bits, under LoRA adapters (QLoRA, arXiv 2305.14314), by bitsandbytes."""

import importlib.util
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import ModelFamily
from rlfr_vlm.options import ModelOptions

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def refuse_four_bits(options: ModelOptions, rollout: str = "hf") -> None:
    """Refuse `load_in_4bit` where it cannot be.

    Args:
        rollout: the engine that generates.

    Raises:
        UserError: no adapters, no GPU, no bitsandbytes, or an engine that takes whole weights.
    """
    if not options.load_in_4bit:
        return
    import torch

    if not options.use_peft:
        raise UserError(
            "load_in_4bit is true: 4-bit weights cannot be trained themselves. Set use_peft: true as well."
        )
    if rollout != "hf":
        raise UserError(
            f"load_in_4bit is true and rollout is {rollout}: vLLM takes merged weights, and 4-bit ones cannot be "
            "merged without loss. Set rollout: hf, or load_in_4bit: false."
        )
    if not torch.cuda.is_available():
        raise UserError(
            "load_in_4bit is true, and this machine has no GPU: bitsandbytes trains 4-bit layers on GPUs. Set "
            "load_in_4bit: false."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("load_in_4bit needs the package bitsandbytes. Run: pip install 'rlfr-vlm[qlora]'")


def four_bit_config(family: ModelFamily) -> "BitsAndBytesConfig":
    """Return the quantisation of QLoRA: NF4, doubly quantised, computed in bfloat16, of the decoder blocks alone."""
    import torch
    from transformers import BitsAndBytesConfig

    whole = ["lm_head", *([] if family.vision_tower is None else [family.vision_tower])]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=whole,
    )
