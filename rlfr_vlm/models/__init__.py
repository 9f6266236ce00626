"""Model families, and which of them a policy or a processor belongs to."""

from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.family import ModelFamily
from rlfr_vlm.models.qwen_vl import QwenVLFamily
from rlfr_vlm.models.text import TextFamily

if TYPE_CHECKING:
    from torch import nn

    from rlfr_vlm.data.encode import ProcessingClass

TEXT = TextFamily()
FAMILIES: tuple[ModelFamily, ...] = (TEXT, QwenVLFamily())
VISION_TOKENS = tuple(dict.fromkeys(token for family in FAMILIES for token in family.vision_tokens))

__all__ = ["FAMILIES", "TEXT", "VISION_TOKENS", "ModelFamily", "family_of", "family_of_processor"]


def family_of(model: "nn.Module") -> ModelFamily:
    """The family of a policy, however it is wrapped.

    Raises:
        UserError: no family lists the policy's `config.model_type`.
    """
    from rlfr_vlm.models.towers import unwrap

    inner = unwrap(model)
    model_type = getattr(getattr(inner, "config", None), "model_type", None)
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    raise UserError(
        f"{type(inner).__name__} (model_type {model_type!r}) belongs to no known model family; known are "
        f"{', '.join(name for family in FAMILIES for name in family.model_types)}. To add it, write a file in "
        "rlfr_vlm/models/ as its README.md shows."
    )


def family_of_processor(processing_class: "ProcessingClass") -> ModelFamily:
    """The family of a processor; a plain tokenizer belongs to the text-only policies.

    Raises:
        UserError: no family lists the processor's class.
    """
    if not hasattr(processing_class, "image_processor"):
        return TEXT
    name = type(processing_class).__name__
    for family in FAMILIES:
        if name in family.processors:
            return family
    raise UserError(
        f"{name} belongs to no known model family, so its image tokens cannot be counted before training; known are "
        f"{', '.join(name for family in FAMILIES for name in family.processors)}. To add it, write a file in "
        "rlfr_vlm/models/ as its README.md shows."
    )
