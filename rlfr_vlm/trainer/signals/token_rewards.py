"""Token rewards of the user's own reward functions, and what reward functions get as arguments.

Letters: B rows, T response tokens.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def add_reward_columns(
    rows: Sequence[dict[str, Any]], completion_ids: Sequence[list[int]], end_ids: Collection[int], logps: Tensor | None
) -> list[dict[str, Any]]:
    """Add the columns `truncated` (no end token was sampled) and `per_token_logps` (None without a log-prob pass).

    Args:
        rows: rows of the data set, one per response.
        completion_ids: token ids of each response, as sampled.
        end_ids: end and padding tokens.
        logps: (B, T) of the policy that sampled, if computed.
    """
    row_logps: list[Any] = [None] * len(rows) if logps is None else logps.tolist()
    return [
        {**row, "truncated": not ids or ids[-1] not in end_ids, "per_token_logps": values and values[: len(ids)]}
        for row, ids, values in zip(rows, completion_ids, row_logps, strict=True)
    ]


def sum_token_rewards(rewards: Iterable[Any], weights: Tensor, like: Tensor) -> Tensor | None:
    """(B, T) weighted sum of the token values of reward functions in their last call; None if none gave any.

    Args:
        rewards: reward functions; those wrapped by `rlfr_vlm.rewards.wrap` have `token_values`.
        weights: one per function.
        like: (B, T), gives shape and device.
    """
    total = torch.zeros_like(like, dtype=torch.float32)
    has_values = False
    for weight, reward in zip(weights.tolist(), rewards, strict=True):
        for row, values in enumerate(getattr(reward, "token_values", None) or []):
            if values is not None:
                has_values = True
                total[row, : len(values)] += weight * torch.tensor(values, dtype=torch.float32, device=total.device)
    return total if has_values else None
