"""Merge LoRA adapters into the weights that vLLM gets, without changing the base weights.

PEFT merges an adapter by adding to the base weights and unmerges by subtracting. In bfloat16 each such pair leaves a
rounding error, and after many syncs the saved adapter is not the trained model any more (TRL #6688). Here the sum is
a new tensor.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlfr_vlm.trainer.trl_seams import engine_name, gathered_parameters

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from trl.generation.vllm_generation import VLLMGeneration


def merged_parameters(generation: "VLLMGeneration") -> Iterator[tuple[str, Tensor]]:
    """Yield the names and weights that a `VLLMGeneration` sends, with the adapters added.

    The policy does not change. Read in TRL 1.16.0 and PEFT 0.21; a contract test checks the names.
    """
    model = generation.model
    bases = {id(module.get_base_layer().weight): module for module in model.modules() if is_adapted(module)}
    with torch.no_grad(), gathered_parameters(generation, list(model.parameters())):
        for name, parameter in model.named_parameters():
            name = name.removeprefix("base_model.model.").replace(".base_layer", "")
            if model.prefix in name or "original_module" in name:
                continue
            yield engine_name(generation, name), with_adapters(parameter.data, bases.get(id(parameter)))


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a linear layer with a LoRA adapter."""
    return hasattr(module, "get_delta_weight") and hasattr(module, "get_base_layer")


def with_adapters(weight: Tensor, module: "LoraLayer | None") -> Tensor:
    """Return the weight plus the changes of the module's active adapters, in a new tensor of the weight's type."""
    if module is None:
        return weight
    total = weight.float()
    for adapter in module.active_adapters:
        if adapter in module.lora_A:
            total = total + module.get_delta_weight(adapter).float()
    return total.to(weight.dtype)
