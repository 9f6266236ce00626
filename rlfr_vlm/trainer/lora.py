"""LoRA adapters of the language tower."""

from typing import TYPE_CHECKING

from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.towers import find_language_tower, unwrap
from rlfr_vlm.options import ModelOptions

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(policy: nn.Module, options: ModelOptions) -> "LoraConfig | None":
    """PEFT's configuration of the adapter in the options, or None without one.

    Targets are full module names, so that the vision tower and the LM head never get an adapter: flow latents and
    vLLM's weights come from the language tower.

    Raises:
        UserError: PEFT is not installed, or a target is not in the language tower.
    """
    if not options.use_peft:
        return None
    try:
        from peft import LoraConfig
    except ImportError:
        raise UserError(
            "use_peft is true, but PEFT is not installed. Run `bash scripts/setup.sh --extras lora`, or set "
            "use_peft: false."
        ) from None
    if options.lora_r < 1:
        raise UserError(f"lora_r is {options.lora_r}; the rank of an adapter is at least 1. Use 16 to 64.")
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=lora_targets(policy, options.lora_target_modules),
        task_type="CAUSAL_LM",
    )


def lora_targets(policy: nn.Module, last_names: list[str]) -> list[str]:
    """Full names of the language tower's linear layers.

    Args:
        last_names: keep only layers with one of these last names; empty keeps all.

    Raises:
        UserError: no linear layer has one of the names, or there is none.
    """
    layers = find_language_tower(policy).layers
    linear = {id(module) for module in layers.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in unwrap(policy).named_modules() if id(module) in linear]
    if not names:
        raise UserError(
            f"use_peft is true, but the decoder blocks of {type(unwrap(policy)).__name__} have no layer of torch's "
            "class Linear, to which adapters are added. Set use_peft: false."
        )
    available = sorted({name.rpartition(".")[2] for name in names})
    if unknown := [name for name in last_names if name not in available]:
        raise UserError(
            f"lora_target_modules has {unknown[0]!r}, which is not a linear layer of the language tower. It has "
            f"{', '.join(available)}."
        )
    return [name for name in names if not last_names or name.rpartition(".")[2] in last_names]
