"""LLaVA (one square of an image), LLaVA-NeXT and LLaVA-OneVision (the square and a grid of tiles)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlfr_vlm.models.image_tokens import CountedGrid, Size, tokens_by_size
from rlfr_vlm.models.vision_family import VisionFamily, black, numbers_by_row, sides

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass


class LlavaFamily(VisionFamily):
    """LLaVA 1.5."""

    name = "LLaVA"
    model_types = ("llava",)
    processors = ("LlavaProcessor",)
    image_keys = ("pixel_values",)
    needed = ("patch_size", "vision_feature_select_strategy")
    size_rule = "its processor resizes every image to one size"

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        tokens = self.image_grid(processing_class).tokens(1, 1)
        return [int(number) * tokens for number in batch["num_images"]]


class LlavaNextFamily(VisionFamily):
    """LLaVA-NeXT."""

    name = "LLaVA-NeXT"
    model_types = ("llava_next",)
    processors = ("LlavaNextProcessor",)
    image_keys = ("pixel_values", "image_sizes")
    needed = ("patch_size", "vision_feature_select_strategy")
    size_rule = "the sizes that it resizes images to belong to the weights (image_grid_pinpoints)"

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        grid = self.image_grid(processing_class)
        counts = [grid.tokens(width, height) for height, width in batch["image_sizes"].tolist()]
        return numbers_by_row(counts, list(batch["num_images"]))

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        import torch

        config = model.config
        height, width = sides(config.vision_config.image_size)
        tiles = 1 + max(-(-rows // height) * -(-columns // width) for rows, columns in config.image_grid_pinpoints)
        size = torch.tensor([[height, width]], device=like.device)
        return {"pixel_values": black(1, tiles, 3, height, width, like=like), "image_sizes": size}


class LlavaOnevisionFamily(LlavaNextFamily):
    """LLaVA-OneVision. In a row of several images, each becomes one square and no tiles."""

    name = "LLaVA-OneVision"
    model_types = ("llava_onevision",)
    processors = ("LlavaOnevisionProcessor",)
    takes_image_numbers = True
    needed = ("num_image_tokens", "vision_feature_select_strategy")

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        def row_count(grid: CountedGrid, sizes: Sequence[Size]) -> int:
            if len(sizes) > 1:
                return len(sizes) * (processing_class.num_image_tokens + 1)
            return sum(grid.tokens(*size) for size in sizes)

        return CountedGrid(lambda width, height: tokens_by_size(processing_class, width, height), row_count=row_count)

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        grid, start, counts = self.image_grid(processing_class), 0, []
        sizes = [(width, height) for height, width in batch["image_sizes"].tolist()]
        for images in batch["num_images"]:
            counts.append(grid.row_tokens(sizes[start : start + int(images)]))
            start += int(images)
        return counts
