"""LFM2-VL: a small image keeps its shape, a large one becomes tiles and a thumbnail."""

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

from rlfr_vlm.models.image_tokens import CountedGrid, tokens_by_processing
from rlfr_vlm.models.vision_family import VisionFamily, black

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass


class LFM2VLFamily(VisionFamily):
    """LFM2-VL. A batch holds the patches of all tiles, with the rows and columns of patches of each tile."""

    name = "LFM2-VL"
    model_types = ("lfm2_vl",)
    processors = ("Lfm2VlProcessor",)
    token_pattern = r"<\|img_(?:row_\d+_col_\d+|thumbnail)\|>|<\|image_(?:start|end)\|>"
    image_keys = ("pixel_values", "pixel_attention_mask", "spatial_shapes")
    shrinks = True
    size_rule = "the smallest and largest number of pixels belong to its tiles"

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        processor = processing_class.image_processor

        def resized(width: int, height: int) -> Hashable:
            """Size of the image and its tiles, by the processor's own functions (read in transformers 5.17)."""
            factors = {
                "downsample_factor": processor.downsample_factor,
                "encoder_patch_size": processor.encoder_patch_size,
            }
            most = {"max_image_tokens": processor.max_image_tokens}
            size = processor.smart_resize(
                height, width, min_image_tokens=processor.min_image_tokens, **most, **factors
            )
            tolerance = processor.max_pixels_tolerance
            is_large = processor._is_image_too_large(height, width, max_pixels_tolerance=tolerance, **most, **factors)
            if not (is_large and processor.do_image_splitting):
                return size
            tiles = processor._get_grid_layout(
                height, width, processor.min_tiles, processor.max_tiles, processor.tile_size
            )
            return size, tiles

        return CountedGrid(
            lambda width, height: tokens_by_processing(processing_class, width, height),
            key=resized,
            shrinks=True,
            side=processor.encoder_patch_size * processor.downsample_factor,
        )

    def limit_pixels(
        self, processing_class: "ProcessingClass", min_pixels: int | None, max_pixels: int | None
    ) -> None:
        """Set the numbers of tokens of an image in one tile, and the largest number of tiles."""
        processor = processing_class.image_processor
        token = (processor.encoder_patch_size * processor.downsample_factor) ** 2
        if min_pixels is not None:
            processor.min_image_tokens = -(-min_pixels // token)
            if processor.min_image_tokens > processor.max_image_tokens:
                self.refuse_limit("image_min_pixels", min_pixels)
        if max_pixels is not None:
            if max_pixels < token * processor.min_image_tokens:
                self.refuse_limit("image_max_pixels", max_pixels)
            processor.max_image_tokens = min(processor.max_image_tokens, max_pixels // token)
            processor.max_tiles = min(processor.max_tiles, max_pixels // processor.tile_size**2)
            if processor.max_tiles < processor.min_tiles:
                processor.do_image_splitting = False

    def image_tiles(self, processing_class: "ProcessingClass", image: "Image") -> int:
        features = processing_class.image_processor(images=[[image]], return_tensors="pt")
        return len(features["pixel_values"])

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        factor = processing_class.image_processor.downsample_factor
        tokens = (-(-batch["spatial_shapes"] // factor)).prod(dim=1).tolist()
        starts = [sum(batch["num_tiles"][:row]) for row in range(len(batch["num_tiles"]))]
        return [sum(tokens[start : start + tiles]) for start, tiles in zip(starts, batch["num_tiles"], strict=True)]

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        import torch

        config = model.config
        side, patch = config.downsample_factor, config.vision_config.patch_size
        return {
            "pixel_values": black(1, side * side, 3 * patch**2, like=like),
            "spatial_shapes": torch.tensor([[side, side]], device=like.device),
            "pixel_attention_mask": torch.ones(1, side * side, dtype=torch.int32, device=like.device),
        }
