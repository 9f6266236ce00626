"""A black image of weight zero for batches without images, so that every process runs the vision tower.

Where weights are spread over processes (ZeRO-3, FSDP2), a forward pass of the tower is a collective: a process whose
rows are all text would leave the others waiting for ever. A trained tower of which one process has no gradient makes
DDP fail in the same way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlfr_vlm.models.latents import unwrap
from rlfr_vlm.models.vision import find_vision_tower


def smallest_image(config: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Patches and grid (1, 3) of an image that becomes one merged token.

    Args:
        config: of a vision tower of the Qwen2-VL kind.
        like: gives the device.
    """
    side = config.spatial_merge_size
    channels = getattr(config, "in_channels", None) or config.in_chans
    width = channels * config.temporal_patch_size * config.patch_size**2
    return torch.zeros(side * side, width, device=like.device), torch.tensor([[1, side, side]], device=like.device)


@contextmanager
def without_missing_images(policy: nn.Module, dummy: bool) -> Iterator[None]:
    """Inside, forward passes of rows that are all text do not look for images.

    Of a batch of which only other rows have images, TRL hands on none of the patches instead of no patches.

    Args:
        policy: any; nothing is done to one without a vision tower of the Qwen2-VL kind.
        dummy: run the tower on a black image instead, and add nothing of it. It runs right after the embedding, where
            it runs for images too, so that all processes gather weights in the same order.
    """
    tower: Any = find_vision_tower(policy)
    model: Any = unwrap(policy)
    if tower is None or not hasattr(getattr(tower, "config", None), "spatial_merge_size"):
        yield
        return
    without = False

    def note(_module: nn.Module, arguments: tuple[Any, ...], inputs: dict[str, Any]) -> Any:
        nonlocal without
        pixels, past = inputs.get("pixel_values"), inputs.get("past_key_values")
        decoding = past is not None and past.get_seq_length() > 0  # one more token: nobody looks at images again
        without = (pixels is None or len(pixels) == 0) and not decoding
        if without:
            inputs = {**inputs, "pixel_values": None, "image_grid_thw": None}
        return arguments, inputs

    def look(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor | None:
        if not (without and dummy):
            return None
        pixels, grid = smallest_image(tower.config, embedded)
        seen = tower(pixels.to(next(tower.parameters()).dtype), grid_thw=grid)
        seen = seen.pooler_output if hasattr(seen, "pooler_output") else seen
        return embedded + 0.0 * seen.sum().to(embedded.dtype)

    hooks = [
        model.base_model.register_forward_pre_hook(note, with_kwargs=True),
        model.get_input_embeddings().register_forward_hook(look),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
