"""Find the language tower and the vision tower of a policy, however it is wrapped."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass
class LanguageTower:
    """The module that holds the decoder blocks, and the config that describes it.

    Attributes:
        blocks: name of the list of decoder blocks in the module.
    """

    module: nn.Module
    config: "PreTrainedConfig"
    name: str
    blocks: str = "layers"

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder blocks."""
        return getattr(self.module, self.blocks)

    @layers.setter
    def layers(self, layers: nn.ModuleList) -> None:
        setattr(self.module, self.blocks, layers)


def unwrap(model: nn.Module) -> nn.Module:
    """Strip DDP, DeepSpeed, torch.compile and PEFT wrappers, down to the transformers model."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()  # type: ignore[operator]
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module  # type: ignore[assignment]
        else:
            return model


def descend(module: nn.Module, name: str) -> object:
    """The attribute at a dotted name, or None."""
    value: object = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def find_language_tower(model: nn.Module) -> LanguageTower:
    """The language tower of a policy.

    Raises:
        UserError: the policy's family is unknown, or it has no decoder blocks where its family has them.
    """
    inner = unwrap(model)
    family = family_of(inner)
    name, blocks = family.language_tower, family.blocks
    module = descend(inner, name)
    if isinstance(module, nn.Module) and isinstance(getattr(module, blocks, None), nn.ModuleList):
        return LanguageTower(module, inner.config.get_text_config(), name, blocks)  # type: ignore[operator, union-attr]
    raise UserError(
        f"Cannot find the decoder blocks of {type(inner).__name__} at {name}.{blocks}. Load the class with a language "
        "head (…ForCausalLM or …ForConditionalGeneration)."
    )


def find_vision_tower(model: nn.Module) -> nn.Module | None:
    """The vision tower, or None for a text-only policy."""
    inner = unwrap(model)
    name = family_of(inner).vision_tower
    tower = None if name is None else descend(inner, name)
    return tower if isinstance(tower, nn.Module) else None
