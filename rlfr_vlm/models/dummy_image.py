"""Run the vision tower on a black image where a batch has none, so that every rank runs it.

Under ZeRO-3 and FSDP2 a forward pass of the tower is a collective: a rank whose rows are all text would leave the
other ranks waiting for ever. With a trained tower, a rank without a gradient makes DDP fail in the same way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from rlfr_vlm.models import family_of
from rlfr_vlm.models.towers import find_vision_tower, unwrap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ForwardArguments: TypeAlias = dict[str, Any]  # keyword arguments of a model's forward method


def _has_no_image_token(input_ids: Tensor | None, image_token: int | None) -> bool:
    """Whether no row has an image token; a processor may return empty images for rows of text (Idefics3)."""
    return input_ids is not None and image_token is not None and not torch.eq(input_ids, image_token).any()


@contextmanager
def without_missing_images(policy: nn.Module, dummy: bool) -> Iterator[None]:
    """Let forward passes of text-only rows run without images, inside the context.

    For a batch in which only other rows have images, TRL passes on zero patches instead of no patches.

    Args:
        policy: a text-only policy is left as it is.
        dummy: run the tower on a black image instead, and add zero times its features. The tower runs right after the
            embedding, where it runs for real images too, so that all ranks gather weights in the same order.
    """
    family, tower = family_of(policy), find_vision_tower(policy)
    model: PreTrainedModel = unwrap(policy)
    if tower is None:
        yield
        return
    is_text_only, image_token = False, family.image_token_id(model.config)

    def drop_empty_images(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: ForwardArguments
    ) -> tuple[tuple[Tensor, ...], ForwardArguments]:
        nonlocal is_text_only
        pixels, cache = kwargs.get(family.image_keys[0]), kwargs.get("past_key_values")
        is_decoding = cache is not None and cache.get_seq_length() > 0  # the images were encoded with the prompt
        has_no_images = pixels is None or len(pixels) == 0 or _has_no_image_token(kwargs.get("input_ids"), image_token)
        is_text_only = has_no_images and not is_decoding
        if is_text_only:
            kwargs = {**kwargs, **dict.fromkeys(family.image_keys)}
        return args, kwargs

    def add_dummy_features(_module: nn.Module, _args: tuple[Tensor, ...], embeddings: Tensor) -> Tensor | None:
        if not (is_text_only and dummy):
            return None
        features = family.dummy_image_features(model, embeddings)
        return None if features is None else embeddings + 0.0 * features.to(embeddings.dtype)

    hooks = [
        model.base_model.register_forward_pre_hook(drop_empty_images, with_kwargs=True),
        model.get_input_embeddings().register_forward_hook(add_dummy_features),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
