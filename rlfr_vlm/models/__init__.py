"""Model families, and which of them a policy or a processor belongs to."""

from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.family import ModelFamily
from rlfr_vlm.models.gemma import Gemma3Family, Gemma4Family, Gemma4TextFamily
from rlfr_vlm.models.glm_v import GLMVFamily
from rlfr_vlm.models.idefics import IdeficsFamily
from rlfr_vlm.models.internvl import InternVLFamily
from rlfr_vlm.models.lfm2_vl import LFM2VLFamily
from rlfr_vlm.models.llava import LlavaFamily, LlavaNextFamily, LlavaOnevisionFamily
from rlfr_vlm.models.pixtral import PixtralFamily
from rlfr_vlm.models.qwen_vl import VISION_TOKENS, Qwen3VLFamily, QwenVLFamily
from rlfr_vlm.models.refused import refuse_by_name
from rlfr_vlm.models.text import GPT2Family, GPTNeoXFamily, OPTFamily, TextFamily

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

    from rlfr_vlm.data.encode import ProcessingClass

TEXT = TextFamily()
FAMILIES: tuple[ModelFamily, ...] = (
    TEXT,
    GPT2Family(),
    GPTNeoXFamily(),
    OPTFamily(),
    QwenVLFamily(),
    Qwen3VLFamily(),
    InternVLFamily(),
    Gemma3Family(),
    Gemma4Family(),
    Gemma4TextFamily(),
    IdeficsFamily(),
    LlavaFamily(),
    LlavaNextFamily(),
    LlavaOnevisionFamily(),
    PixtralFamily(),
    GLMVFamily(),
    LFM2VLFamily(),
)

__all__ = [
    "FAMILIES",
    "TEXT",
    "VISION_TOKENS",
    "ModelFamily",
    "family_of",
    "family_of_config",
    "family_of_processor",
]


def family_of(model: "nn.Module") -> ModelFamily:
    """The family of a policy, however it is wrapped.

    Raises:
        UserError: no family lists the policy's `config.model_type`, or the family is refused by name.
    """
    from rlfr_vlm.models.towers import unwrap

    inner = unwrap(model)
    return family_of_config(getattr(inner, "config", None), type(inner).__name__)


def family_of_config(config: "PreTrainedConfig | None", name: str) -> ModelFamily:
    """The family of a policy by its config, before its weights are loaded.

    Args:
        name: of the policy, for messages.

    Raises:
        UserError: as for `family_of`.
    """
    model_type = model_type_of(config)
    refuse_by_name(model_type)
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    raise UserError(
        f"{name} (model_type {model_type!r}) belongs to no known model family; known are "
        f"{', '.join(name for family in FAMILIES for name in family.model_types)}. To add it, write a file in "
        "rlfr_vlm/models/ as its README.md shows."
    )


def model_type_of(config: "PreTrainedConfig | None") -> str | None:
    """The model type of a config; `pixtral` for a LLaVA with Pixtral's vision tower, as Pixtral is published."""
    vision = getattr(getattr(config, "vision_config", None), "model_type", None)
    model_type = getattr(config, "model_type", None)
    return "pixtral" if (model_type, vision) == ("llava", "pixtral") else model_type


def family_of_processor(processing_class: "ProcessingClass") -> ModelFamily:
    """The family of a processor; a plain tokenizer belongs to the text-only policies.

    Raises:
        UserError: no family lists the processor's class, or the processor lacks a value that the family needs.
    """
    if not hasattr(processing_class, "image_processor"):
        return TEXT
    name = type(processing_class).__name__
    for family in FAMILIES:
        if name in family.processors:
            family.check_processor(processing_class)
            return family
    raise UserError(
        f"{name} belongs to no known model family, so its image tokens cannot be counted before training; known are "
        f"{', '.join(name for family in FAMILIES for name in family.processors)}. To add it, write a file in "
        "rlfr_vlm/models/ as its README.md shows."
    )
