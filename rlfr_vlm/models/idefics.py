"""Idefics3 and SmolVLM: an image becomes rows and columns of tiles and a small copy of the whole image.

The processor returns a row of tiles for each prompt, padded with zeros, and none for rows without images.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlfr_vlm.models.image_tokens import CountedGrid, tokens_by_processing
from rlfr_vlm.models.vision_family import VisionFamily

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass


class IdeficsFamily(VisionFamily):
    """Idefics3 and SmolVLM."""

    name = "Idefics3 and SmolVLM"
    model_types = ("idefics3", "smolvlm")
    processors = ("Idefics3Processor", "SmolVLMProcessor")
    language_tower = "model.text_model"
    vision_tower = "model.vision_model"
    token_pattern = r"<row_\d+_col_\d+>|<global-img>|<fake_token_around_image>"
    image_keys = ("pixel_values", "pixel_attention_mask")
    images_by_row = True
    size_rule = "its processor resizes every image to one length of the longer side"

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        tiles = processing_class.image_processor.get_number_of_image_patches
        return CountedGrid(
            lambda width, height: tokens_by_processing(processing_class, width, height),
            key=lambda width, height: tiles(height, width),
        )

    def limit_largest(self, processing_class: "ProcessingClass", max_pixels: int) -> None:
        """Set the longer side of an image to the largest number of tiles that keeps the limit for a square image."""
        processor = processing_class.image_processor
        tile = processor.max_image_size["longest_edge"]
        tiles = int(max_pixels**0.5) // tile
        if tiles < 1:
            self.refuse_limit("image_max_pixels", max_pixels)
        processor.size = {"longest_edge": min(processor.size["longest_edge"], tiles * tile)}

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        tiles = batch["pixel_attention_mask"].flatten(2).any(dim=2).sum(dim=1)
        return (tiles * processing_class.image_seq_len).tolist()

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        image = super().dummy_image(model, like)["pixel_values"]
        return {"pixel_values": image[None] + 1}  # zeros are padding to the model
