"""One more forward pass over a rollout, for its latents alone, where TRL runs none for the old log-probs."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import FusedCausalLMOutput

from rlfr_vlm.models.latents import only_first_blocks

# What TRL's log-prob pass takes besides tokens (read in 1.16.0).
IMAGE_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "mm_token_type_ids",
    "token_type_ids",
    "pixel_attention_mask",
    "image_sizes",
    "spatial_shapes",
    "num_tiles",
    "image_position_ids",
)


def run_latent_pass(trainer: Any, output: dict[str, Any], deepest: int) -> None:
    """Run a rollout through TRL's log-prob pass with a model that ends at block `deepest` and has no LM head.

    TRL's own batching does the slicing of images; the trainer's capture takes the latents. Under FSDP a part of a
    model cannot run alone, and the whole one does.

    Args:
        output: the batch of the rollout.
    """
    checkpointing = disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs)
    whole: AbstractContextManager[nn.Module] = nullcontext(trainer.model)
    part = whole if trainer.is_fsdp_enabled else only_first_blocks(trainer.model, deepest)
    with torch.no_grad(), checkpointing, part as backbone:

        def shortened(labels: Tensor, fused_lm_head: bool, **model_inputs: Any) -> FusedCausalLMOutput:
            backbone(**model_inputs, use_cache=False)
            return FusedCausalLMOutput(log_probs=torch.zeros_like(labels[:, 1:], dtype=torch.float32))

        trainer._get_per_token_logps_and_entropies(
            trainer.model if backbone is trainer.model else shortened,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].shape[1],
            batch_size=trainer.args.per_device_train_batch_size,
            **{key: output[key] for key in IMAGE_KEYS if key in output},
        )
