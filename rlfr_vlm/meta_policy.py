"""Build a policy without weights, on the meta device, from its configuration alone."""

from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import FlowSpec
from rlfr_vlm.options import ModelOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def policy_on_meta(options: ModelOptions, *, freeze_vision: bool) -> "PreTrainedModel":
    """Build the policy of the options, with its adapters, and with its frozen weights marked.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from rlfr_vlm.models.vision import freeze_vision_tower
    from rlfr_vlm.policy import why_unread
    from rlfr_vlm.trainer.lora import lora_config

    try:
        config = AutoConfig.from_pretrained(options.model_name_or_path, revision=options.model_revision)
    except (OSError, ValueError) as error:
        raise UserError(
            f"Cannot read the model's configuration: {options.model_name_or_path}: {why_unread(error)} Give a model "
            "folder, or a hub id this machine can reach."
        ) from None
    cls = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        policy = cls.from_config(config, dtype=torch.float32)
        if (adapter := lora_config(policy, options)) is not None:
            from peft import get_peft_model

            policy = get_peft_model(policy, adapter)
    if freeze_vision:
        freeze_vision_tower(policy)
    return policy


def fields_depth(hidden_size: int) -> int:
    """Return the residual blocks of a field in the recipes: 4 up to 3B policies, 6 for 7B and 8B."""
    return 4 if hidden_size < 3000 else 6


def assumed_spec(policy: "PreTrainedModel") -> FlowSpec:
    """Return the spec of the field that the recipes would fit to a policy."""
    from rlfr_vlm.models.towers import find_language_tower

    config = find_language_tower(policy).config
    return FlowSpec.for_policy(config, "plan", fields_depth(config.hidden_size), (0.25, 0.5, 0.75))
