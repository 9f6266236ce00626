"""Load a checkpoint's policy weights into a policy that is already built."""

from pathlib import Path
from typing import Any

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


def is_plain(model: nn.Module, accelerator: Any) -> bool:
    """Whether `model` is a whole transformers model, neither an adapter nor sharded."""
    plugins = ("fsdp_plugin", "deepspeed_plugin")
    sharded = any(getattr(accelerator.state, plugin, None) is not None for plugin in plugins)
    return isinstance(model, PreTrainedModel) and not sharded
