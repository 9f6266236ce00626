"""Run the forward pass of a prompt once for all its responses, before transformers generates them.

Letters: B responses, U distinct prompts, P prompt length (left-padded).
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlfr_vlm.models import family_of
from rlfr_vlm.models.replaced import method_replaced
from rlfr_vlm.models.shared_prefix.prompts import RowImages, rows_by_prompt
from rlfr_vlm.models.towers import unwrap

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

IMAGE_INPUTS = ("pixel_values", "image_grid_thw", "mm_token_type_ids")


@torch.no_grad()
def shared_prefill(
    policy: "PreTrainedModel", input_ids: Tensor, attention_mask: Tensor, images: Mapping[str, Tensor] | None = None
) -> DynamicCache | None:
    """Keys and values of all prompt tokens but the last, computed once for each distinct prompt.

    Give the result to `generate` as `past_key_values`, beside the same `input_ids` and `attention_mask`, without the
    images.

    Args:
        policy: unwrapped.
        input_ids, attention_mask: (B, P).
        images: `IMAGE_INPUTS` of all rows, where the policy's family shares prompts; None for prompts of text.

    Returns:
        A cache of B rows and P - 1 tokens; None where `generate` must do it: no prompt repeats, prompts have one
        token, or the policy takes no positions or has layers other than full attention.
    """
    family = family_of(policy)
    row_images, image_token = None, family.image_token_id(policy.config)
    if images and image_token is not None:
        row_images = RowImages.by_tokens(input_ids == image_token, policy.config, images)
    groups = rows_by_prompt(input_ids, attention_mask, row_images)
    if len(groups) == len(input_ids) or input_ids.shape[1] < 2:
        return None
    cache = DynamicCache(config=policy.config)
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    if "position_ids" not in inspect.signature(policy.forward).parameters:
        return None
    first = [rows[0] for rows in groups]
    ids, mask = input_ids[first], attention_mask[first]
    inputs: dict[str, Tensor] = {"input_ids": ids[:, :-1], "attention_mask": mask[:, :-1]}
    chosen = row_images and row_images.of_rows(first)
    if images and chosen is not None:
        inputs |= {"pixel_values": chosen.pixel_values, "image_grid_thw": chosen.image_grid_thw}
        inputs["mm_token_type_ids"] = images["mm_token_type_ids"][first, :-1]
    else:
        inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, :-1]  # as `generate` counts them
    policy(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    prompt_of_row = torch.empty(len(input_ids), dtype=torch.long, device=ids.device)
    for number, rows in enumerate(groups):
        prompt_of_row[rows] = number
    cache.batch_select_indices(prompt_of_row)
    family.continue_prompts(policy, prompt_of_row, has_images=chosen is not None)
    return cache


@contextmanager
def prompts_prefilled_once(policy: nn.Module) -> Iterator[None]:
    """Let `generate` run each prompt of a batch once, inside the context.

    Args:
        policy: wrapped or not; its weights must be whole on this process.
    """
    model: Any = unwrap(policy)
    generate = model.generate

    def prefilled(input_ids: Tensor, attention_mask: Tensor, **inputs: Any) -> Tensor:
        images = {name: inputs[name] for name in IMAGE_INPUTS if inputs.get(name) is not None}
        goes_on = _goes_on_from_a_cache(inputs.get("generation_config"), model.generation_config)
        has_videos = inputs.get("pixel_values_videos") is not None
        cache = None
        if goes_on and not has_videos:
            cache = shared_prefill(model, input_ids, attention_mask, images)
        if cache is not None:
            inputs = {name: value for name, value in inputs.items() if name not in IMAGE_INPUTS}
            inputs["past_key_values"] = cache
        result: Tensor = generate(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        return result

    with method_replaced(model, "generate", prefilled):
        yield


def _goes_on_from_a_cache(config: "GenerationConfig | None", defaults: "GenerationConfig") -> bool:
    """Whether `generate` takes a plain cache with one row for each response.

    Args:
        config: settings of the call; None has none.
        defaults: the policy's own, with which `generate` fills what the call leaves out.
    """

    def setting(name: str) -> Any:
        value = getattr(config, name, None)
        return getattr(defaults, name, None) if value is None else value

    return (
        setting("use_cache") is not False
        and setting("cache_implementation") is None
        and (setting("num_beams") or 1) == 1
        and (setting("num_return_sequences") or 1) == 1
    )
