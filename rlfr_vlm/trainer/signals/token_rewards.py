"""What rewards are told beside a row's columns, and what they give per token. Letters: B rows, T response tokens."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def rows_for_rewards(
    rows: Sequence[dict[str, Any]], completion_ids: Sequence[list[int]], end_ids: Collection[int], logps: Tensor | None
) -> list[dict[str, Any]]:
    """Rows with `truncated` (it never sampled an end token) and `per_token_logps` (None where no pass computed them).

    Args:
        rows: the rows of the data set, one per response.
        completion_ids: token ids of each response, as sampled.
        end_ids: end and padding tokens.
        logps: (B, T) of the policy that sampled, if known.
    """
    known: list[Any] = [None] * len(rows) if logps is None else logps.tolist()
    return [
        {**row, "truncated": not ids or ids[-1] not in end_ids, "per_token_logps": own and own[: len(ids)]}
        for row, ids, own in zip(rows, completion_ids, known, strict=True)
    ]


def own_token_rewards(rewards: Iterable[Any], weights: Tensor, like: Tensor) -> Tensor | None:
    """(B, T) weighted sum of what rewards gave per token in their last call; None when none gave any.

    Args:
        rewards: reward functions; those wrapped by `rlfr_vlm.rewards.wrap` have `token_values`.
        weights: one per function.
        like: (B, T), gives shape and device.
    """
    total = torch.zeros_like(like, dtype=torch.float32)
    found = False
    for weight, reward in zip(weights.tolist(), rewards, strict=True):
        for row, values in enumerate(getattr(reward, "token_values", None) or []):
            if values is not None:
                found = True
                total[row, : len(values)] += weight * torch.tensor(values, dtype=torch.float32, device=total.device)
    return total if found else None
