"""Run one more forward pass over a rollout, for its latents alone, where TRL runs none for the old log-probs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.utils import FusedCausalLMOutput

from rlfr_vlm.models.latents import only_first_blocks
from rlfr_vlm.trainer.pass_inputs import PassInputs


def run_latent_pass(
    model: nn.Module,
    inputs: PassInputs,
    deepest: int,
    logprob_pass: Callable[..., object],
    *,
    batch_size: int,
    checkpointing_kwargs: dict[str, object] | None,
    whole_model: bool,
) -> None:
    """Run a rollout through TRL's log-prob pass with a model that ends at block `deepest` and has no LM head.

    TRL slices the images for each chunk of rows. The latents are captured by the hooks that are registered during
    the call.

    Args:
        model: the policy.
        inputs: of the rollout.
        deepest: the last block to run, counted from 1.
        logprob_pass: TRL's `_get_per_token_logps_and_entropies`.
        batch_size: rows of one forward pass.
        checkpointing_kwargs: the run's `gradient_checkpointing_kwargs`.
        whole_model: run the whole model, as FSDP needs: it cannot run a part of a model.
    """
    backbone: AbstractContextManager[nn.Module] = nullcontext(model)
    if not whole_model:
        backbone = only_first_blocks(model, deepest)
    with torch.no_grad(), disable_gradient_checkpointing(model, checkpointing_kwargs), backbone as part:

        def shortened(
            *,
            fused_lm_head: bool,
            labels: Tensor | None = None,
            shift_labels: Tensor | None = None,
            **model_inputs: object,
        ) -> FusedCausalLMOutput:
            part(**model_inputs, use_cache=False)
            if shift_labels is None:  # a row-wise pass
                assert labels is not None
                shift_labels = labels[:, 1:]
            return FusedCausalLMOutput(log_probs=torch.zeros_like(shift_labels, dtype=torch.float32))

        logprob_pass(
            model if part is model else shortened,
            inputs.input_ids,
            inputs.attention_mask,
            inputs.num_response,
            batch_size=batch_size,
            **inputs.images,
        )
