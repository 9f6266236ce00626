"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5.

Images are cut into patches of `patch_size` pixels; `merge_size` x `merge_size` patches become one image token. A batch
holds the patches of all images one after the other (`pixel_values`) and their number of patches in time, height and
width (`image_grid_thw`, (images, 3)).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.image_tokens import Size
from rlfr_vlm.models.vision_family import VisionFamily, numbers_by_row

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass

# Tokens of images and videos in Qwen's vocabularies, which check-data looks for where no policy is given.
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")


@dataclass(frozen=True)
class SmartResizeGrid:
    """Image sizes and token counts by Qwen's `smart_resize`: sides are multiples of patch * merge."""

    patch: int
    merge: int
    min_pixels: int
    max_pixels: int
    shrinks: ClassVar[bool] = True

    @property
    def side(self) -> int:
        """Pixels of the side of one image token."""
        return self.patch * self.merge

    def tokens(self, width: int, height: int) -> int:
        """Number of image tokens, by the processor's own `smart_resize` (qwen-vl-utils has the same arithmetic)."""
        rows, columns = self._resized_sides(width, height)
        return (rows // self.side) * (columns // self.side)

    def row_tokens(self, sizes: Sequence[Size]) -> int:
        """Number of image tokens of the images of one row."""
        return sum(self.tokens(*size) for size in sizes)

    def resized(self, image: "Image") -> "Image":
        """The image at the size that the processor would give it, so that another processor keeps that size.

        An image so thin that its new size would be resized again is returned unchanged.
        """
        from PIL.Image import Resampling

        rows, columns = self._resized_sides(image.width, image.height)
        if image.size == (columns, rows) or self._resized_sides(columns, rows) != (rows, columns):
            return image
        return image.resize((columns, rows), Resampling.BICUBIC)

    def _resized_sides(self, width: int, height: int) -> tuple[int, int]:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        rows, columns = smart_resize(height, width, self.side, self.min_pixels, self.max_pixels)
        return int(rows), int(columns)


class PatchGridFamily(VisionFamily):
    """Families whose processor gives patches of all images and a grid of each image.

    Attributes:
        frames: frames of an image in the processor's limits on pixels.
    """

    vision_tower = "model.visual"
    image_keys = ("pixel_values", "image_grid_thw")
    images_are_runs = True
    splits_images = True
    shrinks = True
    frames: ClassVar[int] = 1

    def limit_pixels(
        self, processing_class: "ProcessingClass", min_pixels: int | None, max_pixels: int | None
    ) -> None:
        processor = processing_class.image_processor
        size = dict(processor.size)
        if min_pixels is not None:
            size["shortest_edge"] = min_pixels * self.frames
        if max_pixels is not None:
            size["longest_edge"] = max_pixels * self.frames
        if size["shortest_edge"] > size["longest_edge"]:
            raise UserError(
                f"Images would have {size['shortest_edge'] // self.frames} pixels at least and "
                f"{size['longest_edge'] // self.frames} at most: the limit that is not set is the processor's own. "
                "Set both image_min_pixels and image_max_pixels."
            )
        processor.size = size

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        merge = processing_class.image_processor.merge_size
        counts = (batch["image_grid_thw"].prod(dim=1) // merge**2).tolist()
        return numbers_by_row(counts, list(batch["num_images"]))

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        pixels, grid = smallest_image(model.config.vision_config, like)
        return {"pixel_values": pixels, "image_grid_thw": grid}

    def split_images(self, features: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]]:
        import torch

        patches = torch.split(features["pixel_values"], features["image_grid_thw"].prod(dim=1).tolist())
        return [
            {"pixel_values": pixels, "image_grid_thw": grid}
            for pixels, grid in zip(patches, features["image_grid_thw"], strict=True)
        ]

    def join_images(self, images: Sequence[Mapping[str, "Tensor"]]) -> dict[str, "Tensor"]:
        import torch

        return {
            "pixel_values": torch.cat([image["pixel_values"] for image in images]),
            "image_grid_thw": torch.stack([image["image_grid_thw"] for image in images]),
        }


class QwenGridFamily(PatchGridFamily):
    """What Qwen's families have in common."""

    token_pattern = r"<\|(?:vision|image|video)_(?:start|end|pad)\|>"
    takes_videos = True

    def token_positions(
        self,
        model: "PreTrainedModel",
        input_ids: "Tensor",
        attention_mask: "Tensor",
        images: Mapping[str, "Tensor"],
    ) -> "Tensor":
        """Positions (3, B, P) in time, height and width, by the model's own `get_rope_index`."""
        if images.get("image_grid_thw") is None:
            return super().token_positions(model, input_ids, attention_mask, images).expand(3, -1, -1)
        positions, _ = model.base_model.get_rope_index(
            input_ids,
            mm_token_type_ids=images["mm_token_type_ids"],
            image_grid_thw=images["image_grid_thw"],
            attention_mask=attention_mask,
        )
        return positions

    def continue_prompts(self, model: "PreTrainedModel", prompt_of_row: "Tensor", *, has_images: bool) -> None:
        """Set the rows' differences between positions and numbers of tokens, which images make."""
        backbone = model.base_model
        if has_images:
            backbone.rope_deltas = backbone.rope_deltas[prompt_of_row]
        else:
            backbone.rope_deltas = prompt_of_row.new_zeros(len(prompt_of_row), 1)

    def image_grid(self, processing_class: "ProcessingClass") -> SmartResizeGrid:
        processor = processing_class.image_processor
        size = getattr(processor, "size", None) or {}
        if "longest_edge" not in size:
            raise UserError(
                f"Image tokens of {type(processor).__name__} cannot be counted before training: its size is {size!r} "
                "and lacks longest_edge. Unset max_prompt_tokens."
            )
        return SmartResizeGrid(processor.patch_size, processor.merge_size, size["shortest_edge"], size["longest_edge"])


class QwenVLFamily(QwenGridFamily):
    """Qwen2-VL and Qwen2.5-VL."""

    name = "Qwen2-VL and Qwen2.5-VL"
    model_types = ("qwen2_vl", "qwen2_5_vl")
    shares_prompts = model_types
    processors = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")


class Qwen3VLFamily(QwenGridFamily):
    """Qwen3-VL, whose decoder blocks also take features of early blocks of the vision tower, and Qwen3.5."""

    name = "Qwen3-VL and Qwen3.5"
    model_types = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
    shares_prompts = ("qwen3_vl",)
    processors = ("Qwen3VLProcessor",)


def smallest_image(config: "PreTrainedConfig", like: "Tensor") -> tuple["Tensor", "Tensor"]:
    """Patches (merge * merge, values of a patch) and grid (1, 3) of a black image that becomes one image token.

    Args:
        config: of the vision tower.
        like: gives the device.
    """
    import torch

    side = config.spatial_merge_size
    channels = getattr(config, "in_channels", None) or config.in_chans
    width = channels * config.temporal_patch_size * config.patch_size**2
    return torch.zeros(side * side, width, device=like.device), torch.tensor([[1, side, side]], device=like.device)
