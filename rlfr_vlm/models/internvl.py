"""InternVL in the format of transformers: an image becomes tiles of one size, and a thumbnail if there are several."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlfr_vlm.models.vision_family import VisionFamily, numbers_by_row

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from rlfr_vlm.data.encode import ProcessingClass


class InternVLFamily(VisionFamily):
    """InternVL 2.5 and 3 (`*-hf`)."""

    name = "InternVL"
    model_types = ("internvl",)
    processors = ("InternVLProcessor",)
    image_keys = ("pixel_values",)
    size_rule = "one tile has more pixels"

    def limit_pixels(
        self, processing_class: "ProcessingClass", min_pixels: int | None, max_pixels: int | None
    ) -> None:
        """Set the smallest and largest number of tiles; the thumbnail is not counted."""
        processor = processing_class.image_processor
        tile = processor.size["height"] * processor.size["width"]
        if min_pixels is not None:
            processor.min_patches = math.ceil(min_pixels / tile)
        if max_pixels is not None:
            if max_pixels < tile * processor.min_patches:
                self.refuse_limit("image_max_pixels", max_pixels)
            processor.max_patches = max_pixels // tile

    def image_tiles(self, processing_class: "ProcessingClass", image: "Image") -> int:
        return int(processing_class.image_processor.get_number_of_image_patches(image.height, image.width))

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        if "num_tiles" in batch:
            tiles = [int(number) for number in batch["num_tiles"]]
        else:  # each image is one tile
            tiles = numbers_by_row([1] * len(batch["pixel_values"]), list(batch["num_images"]))
        return [number * processing_class.image_seq_length for number in tiles]
