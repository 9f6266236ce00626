"""Token rewards of a user's reward functions, and columns that reward functions get besides the row's.

Letters: B rows, T response tokens.
"""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from rlfr_vlm.data.rows import Row


def add_reward_columns(
    rows: Sequence[Row], completion_ids: Sequence[list[int]], end_ids: Collection[int], logps: Tensor | None
) -> list[Row]:
    """Add the columns `truncated` (no end token was sampled) and `per_token_logps` (None without a log-prob pass).

    Args:
        rows: rows of the data set, one per response.
        completion_ids: token ids of each response, as sampled.
        end_ids: end and padding tokens.
        logps: (B, T) of the policy that sampled, if computed.
    """
    row_logps: list[list[float] | None] = [None] * len(rows) if logps is None else logps.tolist()
    return [
        {**row, "truncated": not ids or ids[-1] not in end_ids, "per_token_logps": values and values[: len(ids)]}
        for row, ids, values in zip(rows, completion_ids, row_logps, strict=True)
    ]


def sum_token_rewards(rewards: Iterable[object], weights: Tensor, like: Tensor) -> Tensor | None:
    """Return the weighted sum (B, T) of the token values of the last call of each function; None without any.

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
