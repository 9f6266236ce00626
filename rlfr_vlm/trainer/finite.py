"""Stop training with one message where a reward or a gradient is not finite, before an update uses it."""

import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from transformers import Trainer

from rlfr_vlm.checkpoint import newest_complete
from rlfr_vlm.errors import UserError

LARGEST_REWARD = 1e15  # the square of a larger one leaves float32, in which TRL computes a group's spread


class FiniteUpdates(Trainer):
    """A trainer that stops before an update whose gradient is not finite.

    In float16 the gradient scaler skips such updates itself. DeepSpeed updates the weights before the norm is known:
    the run stops all the same, and its last checkpoint is finite.
    """

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float | None:
        norm: Tensor | float | None = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is None or self.args.fp16 or math.isfinite(norm):
            return norm
        newest = newest_complete(Path(self.args.output_dir))
        resume = f"resume from {newest.name}" if newest else "start again (there is no checkpoint yet)"
        raise UserError(
            f"The gradient of update {self.state.global_step + 1} is not finite (its norm is {float(norm)}), so "
            f"training stopped. Lower learning_rate (it is {self.args.learning_rate:g}) or max_grad_norm (it is "
            f"{self.args.max_grad_norm:g}), and {resume}."
        )


def refuse_large_rewards(rewards: Tensor, names: Sequence[str]) -> None:
    """Refuse rewards whose group has no spread in float32.

    Args:
        rewards: (N, number of reward functions), NaN where undecided.
        names: of the reward functions.

    Raises:
        UserError: names the function and its reward.
    """
    for column, name in enumerate(names):
        values = rewards[:, column]
        bad = values[values.abs() > LARGEST_REWARD]  # False for NaN
        if len(bad):
            raise UserError(
                f"The reward {name} returned {bad[0].item():g}. Rewards above {LARGEST_REWARD:g} in size cannot be "
                "compared within a group. Scale it to about -1 to 1, or return None where it cannot tell."
            )
