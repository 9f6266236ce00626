"""Freeze the vision tower, and make it impossible to sample vision tokens."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of
from rlfr_vlm.models.towers import find_vision_tower, unwrap

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass

# exp(BANNED_LOGIT) is exactly 0 in every float type, and 0 * BANNED_LOGIT stays 0 where 0 * -inf would be NaN.
BANNED_LOGIT = -1e4


def freeze_vision_tower(model: nn.Module) -> int:
    """Freeze the vision tower and return its number of parameters (0 for a text-only policy)."""
    tower = find_vision_tower(model)
    if tower is None:
        return 0
    tower.requires_grad_(False)
    return sum(parameter.numel() for parameter in tower.parameters())


def vision_token_ids(model: nn.Module, processing_class: "ProcessingClass") -> list[int]:
    """Ids of the vision tokens that a policy must not sample; none for a text-only policy.

    Raises:
        UserError: the policy has a vision tower, but the tokenizer has no vision token.
    """
    return family_of(model).vision_token_ids(unwrap(model).config, processing_class)


def ban_tokens(model: nn.Module, token_ids: list[int]) -> None:
    """Give the LM head a constant bias that makes `token_ids` impossible.

    A policy samples an image placeholder sooner or later, and the next forward pass fails because image tokens and
    image features differ in number. The bias acts wherever the head does: in generation, in log-probs and in
    entropies, so that sampling and training use one distribution. It is a buffer outside the state dict: checkpoints
    and weight syncs do not contain it.
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
    """Mark the bias of the ban as not sharded, because TRL gathers the head's weight and bias from all processes.

    TRL reads DeepSpeed's `ds_status` under ZeRO-3 and calls `full_tensor` under FSDP2 (read in TRL 1.16.0,
    `maybe_gather_lm_head_ctx` and `_fused_forward`). Call this function when the model is on its device and sharded.
    """
    head = unwrap(model).get_output_embeddings()  # type: ignore[operator]
    bias = dict(head.named_buffers()).get("bias")
    if bias is None:
        return
    bias.data = bias.data.to(head.weight.dtype)  # DeepSpeed casts parameters and leaves buffers
    bias.full_tensor = lambda: bias
    if hasattr(head.weight, "ds_status"):
        from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

        bias.ds_status = ZeroParamStatus.AVAILABLE
