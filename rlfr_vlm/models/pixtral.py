"""Pixtral and Mistral 3: an image keeps its shape, and its tokens stand in rows with a break after each."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlfr_vlm.models.image_tokens import CountedGrid, tokens_by_size
from rlfr_vlm.models.vision_family import VisionFamily, black, numbers_by_row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass


class PixtralFamily(VisionFamily):
    """Pixtral (a LLaVA with Pixtral's vision tower) and Mistral 3."""

    name = "Pixtral and Mistral 3"
    model_types = ("pixtral", "mistral3")
    processors = ("PixtralProcessor",)
    token_pattern = r"\[IMG(?:_BREAK|_END)?\]"
    image_keys = ("pixel_values", "image_sizes")
    pads_prompts = True
    shrinks = True
    size_rule = "its processor never enlarges an image, and one token has more pixels than a lower limit"

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        return CountedGrid(
            lambda width, height: tokens_by_size(processing_class, width, height),
            shrinks=True,
            side=_token_side(processing_class),
        )

    def limit_largest(self, processing_class: "ProcessingClass", max_pixels: int) -> None:
        """Set the longer side of an image, so that a square image keeps the limit."""
        side = _token_side(processing_class)
        longest = math.isqrt(max_pixels) // side * side
        if not longest:
            self.refuse_limit("image_max_pixels", max_pixels)
        size = processing_class.image_processor.size
        processing_class.image_processor.size = {"longest_edge": min(longest, size["longest_edge"])}

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        tokens = (batch["image_sizes"] // _token_side(processing_class)).prod(dim=1)
        return numbers_by_row(tokens.tolist(), list(batch["num_images"]))

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        import torch

        config = model.config
        side = config.vision_config.patch_size * getattr(config, "spatial_merge_size", 1)
        size = torch.tensor([[side, 2 * side]], device=like.device)  # the model loses an axis of a single token
        return {"pixel_values": black(1, 3, side, 2 * side, like=like), "image_sizes": size}


def _token_side(processing_class: "ProcessingClass") -> int:
    """Pixels of the side of one image token."""
    return int(processing_class.patch_size * processing_class.spatial_merge_size)
