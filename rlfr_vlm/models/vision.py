"""Two precautions for vision-language policies: a frozen vision tower, and no sampled vision tokens."""

import logging
from typing import Any

import torch
from torch import nn

from rlfr_vlm.data.encode import tokenizer_of
from rlfr_vlm.data.prompts import VISION_TOKENS
from rlfr_vlm.errors import UserError
from rlfr_vlm.models.latents import descend, unwrap

logger = logging.getLogger(__name__)

VISION_TOWER_NAMES = ("model.visual", "visual", "model.vision_tower", "vision_tower")
# exp(BANNED_LOGIT) is exactly 0 in every float type, and 0 * BANNED_LOGIT stays 0 where 0 * -inf would be NaN.
BANNED_LOGIT = -1e4


def find_vision_tower(model: nn.Module) -> nn.Module | None:
    """The vision tower, or None for a text-only policy."""
    inner = unwrap(model)
    for name in VISION_TOWER_NAMES:
        module = descend(inner, name)
        if isinstance(module, nn.Module):
            return module
    return None


def freeze_vision_tower(model: nn.Module) -> int:
    """Freeze the vision tower and return its number of parameters (0 for a text-only policy)."""
    tower = find_vision_tower(model)
    if tower is None:
        return 0
    tower.requires_grad_(False)
    return sum(parameter.numel() for parameter in tower.parameters())


def vision_token_ids(model: nn.Module, processing_class: Any) -> list[int]:
    """Ids of the vision tokens in the vocabulary; none for a text-only policy, which may sample what it likes."""
    if find_vision_tower(model) is None:
        return []
    tokenizer = tokenizer_of(processing_class)
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary[token] for token in VISION_TOKENS if token in vocabulary)


def ban_tokens(model: nn.Module, token_ids: list[int]) -> None:
    """Give the LM head a constant bias that makes `token_ids` impossible.

    A policy samples an image placeholder sooner or later, and the next forward pass dies because image tokens and
    image features differ in number. The bias acts wherever the head does: in generation, in log-probs and in
    entropies, so sampling and training see one distribution. It is a buffer outside the state dict: checkpoints and
    weight syncs do not know it.
    """
    head = unwrap(model).get_output_embeddings()  # type: ignore[operator]
    if not token_ids or "bias" in dict(head.named_buffers()):  # nothing to ban, or banned already
        return
    if head.bias is not None:
        raise UserError(
            "The policy's LM head has a bias, so vision tokens cannot be banned. Set ban_vision_tokens: false."
        )
    # out_features, not the weight's shape: under ZeRO-3 the weight is empty here
    bias = torch.zeros(head.out_features, device=head.weight.device, dtype=head.weight.dtype)
    bias[token_ids] = BANNED_LOGIT
    del head.bias  # registered as an absent parameter, which a buffer cannot replace
    head.register_buffer("bias", bias, persistent=False)


def mark_ban_as_whole(model: nn.Module) -> None:
    """Tell TRL, which gathers the head's weight and bias from all processes, that the ban is whole on each.

    It looks for DeepSpeed's mark under ZeRO-3 and asks for `full_tensor` under FSDP2 (read in TRL 1.16.0,
    `maybe_gather_lm_head_ctx` and `_fused_forward`). Call it when the model has its place.
    """
    head: Any = unwrap(model).get_output_embeddings()  # type: ignore[operator]
    bias: Any = dict(head.named_buffers()).get("bias")
    if bias is None:
        return
    bias.data = bias.data.to(head.weight.dtype)  # DeepSpeed casts parameters and leaves buffers
    bias.full_tensor = lambda: bias
    if hasattr(head.weight, "ds_status"):
        from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

        bias.ds_status = ZeroParamStatus.AVAILABLE
