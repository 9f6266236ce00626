"""LoRA on the language tower, and its merged weights for vLLM without touching the base weights.

PEFT merges an adapter by adding to the base weights and unmerges by subtracting; in bfloat16 each such pair leaves
rounding behind, and after many syncs the saved adapter is not the trained model any more (TRL #6688). Here the sum is
made in a tensor of its own.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.latents import find_language_tower, unwrap
from rlfr_vlm.options import ModelOptions


def lora_config(policy: nn.Module, options: ModelOptions) -> Any:
    """PEFT's configuration of the adapter that the options ask for, or None.

    Targets are named in full, so that the vision tower and the LM head never get an adapter: vLLM and flow latents are
    of the language tower.

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


def lora_targets(policy: nn.Module, wanted: list[str]) -> list[str]:
    """Full names of the language tower's linear layers, or of those of them whose last name is wanted.

    Raises:
        UserError: a wanted name is not among them.
    """
    layers = find_language_tower(policy).layers
    found = {id(module) for module in layers.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in unwrap(policy).named_modules() if id(module) in found]
    known = sorted({name.rpartition(".")[2] for name in names})
    if unknown := [name for name in wanted if name not in known]:
        raise UserError(
            f"lora_target_modules has {unknown[0]!r}, which is not a linear layer of the language tower. It has "
            f"{', '.join(known)}."
        )
    return [name for name in names if not wanted or name.rpartition(".")[2] in wanted]


def merged_parameters(generation: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights that TRL's `VLLMGeneration._iter_named_params` yields, under the same names, adapters added.

    Nothing in the policy changes. Read in TRL 1.16.0 and PEFT 0.21; the names are under a contract test.
    """
    model = generation.model
    bases = {id(module.get_base_layer().weight): module for module in model.modules() if is_adapted(module)}
    with torch.no_grad(), generation._dist.gather_params(list(model.parameters())):
        for name, parameter in model.named_parameters():
            name = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if model.prefix in name or "original_module" in name:
                continue
            name = generation._fix_param_name_to_vllm(name, extra_prefixes=["modules_to_save.default."])
            yield name, with_adapters(parameter.data, bases.get(id(parameter)))


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a linear layer with a LoRA adapter."""
    return hasattr(module, "get_delta_weight") and hasattr(module, "get_base_layer")


def with_adapters(weight: Tensor, module: Any) -> Tensor:
    """The weight plus what the module's active adapters add to it, in a new tensor of the weight's type."""
    if module is None:
        return weight
    total = weight.float()
    for adapter in module.active_adapters:
        if adapter in module.lora_A:
            total = total + module.get_delta_weight(adapter).float()
    return total.to(weight.dtype)
