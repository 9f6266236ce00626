"""Load a checkpoint's policy weights into a policy that is already built."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rlfr_vlm.errors import UserError


def load_policy_weights(policy: PreTrainedModel, checkpoint: str | Path) -> None:
    """Load the weights that `save_pretrained` wrote.

    transformers saves Qwen2.5-VL under its published names (`visual.*`, `model.layers.*`), while the module has others
    (`model.visual.*`, `model.language_model.layers.*`). `Trainer` loads a checkpoint by raw names and not strictly, so
    it would resume from the initial weights with a mere warning (seen in transformers 5.17.0). `from_pretrained`
    translates the names; loading its state strictly leaves no weight out.

    Raises:
        UserError: the checkpoint does not hold this policy.
    """
    try:
        saved = type(policy).from_pretrained(checkpoint, dtype=policy.dtype)
        policy.load_state_dict(saved.state_dict(), strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{checkpoint} does not hold this policy's weights: {reason}") from None


def is_zero3(accelerator: Any) -> bool:
    """Whether DeepSpeed keeps only a shard of each weight on a process."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def is_sharded(accelerator: Any) -> bool:
    """Whether a process holds only a shard of each weight: under ZeRO-3 or FSDP."""
    return is_zero3(accelerator) or getattr(accelerator.state, "fsdp_plugin", None) is not None


def is_plain(model: nn.Module, accelerator: Any) -> bool:
    """Whether `model` is a whole transformers model, neither an adapter nor in DeepSpeed's or FSDP's hands."""
    managed = getattr(accelerator.state, "deepspeed_plugin", None) is not None or is_sharded(accelerator)
    return isinstance(model, PreTrainedModel) and not managed


def skip_epochs(sampler: Any, epochs: int) -> None:
    """Let TRL's `RepeatSampler` draw the orders of the epochs that are done.

    It draws one from its own generator at each epoch, and starts with the first one again when a run is resumed: a run
    resumed in its second epoch would see the prompts in the first one's order (seen in TRL 1.16.0).
    """
    generator = getattr(sampler, "generator", None)
    for _ in range(epochs if generator is not None else 0):
        torch.randperm(sampler.num_samples, generator=generator)
