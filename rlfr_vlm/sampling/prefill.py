"""Run the forward pass of a prompt once for all its responses, before transformers generates them.

Letters: B responses, U distinct prompts, P prompt length (left-padded).
"""

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.no_grad()
def shared_prefill(policy: "PreTrainedModel", input_ids: Tensor, attention_mask: Tensor) -> DynamicCache | None:
    """Keys and values of all prompt tokens but the last, computed once for each distinct prompt.

    Give the result to `generate` as `past_key_values`, beside the same `input_ids` and `attention_mask`.

    Args:
        input_ids, attention_mask: (B, P) prompts of text, without images.

    Returns:
        A cache of B rows and P - 1 tokens; None where `generate` must do it: no prompt repeats, prompts have one
        token, or the policy takes no positions or has layers other than full attention.
    """
    first_of, row_of = _distinct(input_ids)
    if len(first_of) == len(row_of) or input_ids.shape[1] < 2:
        return None
    cache = DynamicCache(config=policy.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    if "position_ids" not in inspect.signature(policy.forward).parameters:
        return None
    ids, mask = input_ids[first_of], attention_mask[first_of]
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)  # as `generate` counts them
    policy(
        input_ids=ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=positions[:, :-1],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_select_indices(torch.tensor(row_of, device=ids.device))
    return cache


def _distinct(input_ids: Tensor) -> tuple[list[int], list[int]]:
    """First row (U,) of each distinct prompt, and the number (B,) of each row's prompt among them."""
    numbers: dict[tuple[int, ...], int] = {}
    first_of: list[int] = []
    row_of: list[int] = []
    for row, ids in enumerate(map(tuple, input_ids.tolist())):
        if ids not in numbers:
            numbers[ids] = len(first_of)
            first_of.append(row)
        row_of.append(numbers[ids])
    return first_of, row_of
