"""Say whether a policy's passes over packed rows are known to equal row-wise ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from rlfr_vlm.models import family_of
from rlfr_vlm.models.shared_prefix.attention import SUFFIX
from rlfr_vlm.models.towers import unwrap

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Attention functions whose masks packed rows use. Others, flash attention among them, have not been run here.
ATTENTIONS = ("sdpa",)
# Rotary embeddings whose frequencies do not depend on the longest row of the batch.
ROPES = ("default", "linear", "llama3", "yarn", "mrope", "proportional")


def why_not_shared(policy: nn.Module) -> str | None:
    """Why a policy's prompts cannot be shared; None if they can.

    Args:
        policy: wrapped or not.
    """
    config: PreTrainedConfig = unwrap(policy).config
    text = config.get_text_config()
    family, model_type = family_of(policy), config.model_type
    if model_type not in family.shares_prompts:
        return f"passes over packed rows are not tested with {model_type} policies"
    if getattr(getattr(policy, "active_peft_config", None), "is_prompt_learning", False):
        return "the adapter adds tokens to each row"
    attention = (text._attn_implementation or "").removesuffix(SUFFIX)
    if attention not in ATTENTIONS:
        return f"the policy's attention is {attention}, and packed rows are tested with {', '.join(ATTENTIONS)}"
    layer_types = getattr(text, "layer_types", None) or ()
    if getattr(text, "sliding_window", None) and not layer_types:
        return f"the policy's attention has a sliding window of {text.sliding_window} tokens"
    if other := sorted(set(layer_types) - {"full_attention"}):
        return f"the policy has layers of the type {other[0]}, which packed rows do not have"
    if unknown := sorted(_rope_types(text) - set(ROPES)):
        return f"the policy's rotary embedding is of the type {unknown[0]}, which depends on the length of the row"
    return None


def _rope_types(config: "PreTrainedConfig") -> set[str]:
    """Types of rotary embedding in a config, which has one set of parameters, or one for each type of layer."""
    parameters: Any = getattr(config, "rope_parameters", None) or {}
    sets = [part for part in (parameters, *parameters.values()) if isinstance(part, Mapping)]
    return {part["rope_type"] for part in sets if "rope_type" in part}
