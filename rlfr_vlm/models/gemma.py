"""Gemma 3, whose images all become one number of tokens, and Gemma 4, whose images become at most one number."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.family import ModelFamily
from rlfr_vlm.models.image_tokens import CountedGrid, tokens_by_processing
from rlfr_vlm.models.vision_family import VisionFamily, black, numbers_by_row

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass

SOFT_TOKENS = (70, 140, 280, 560, 1120)  # numbers of tokens of an image that Gemma 4's processor accepts


class Gemma3Family(VisionFamily):
    """Gemma 3."""

    name = "Gemma 3"
    model_types = ("gemma3",)
    processors = ("Gemma3Processor",)
    image_keys = ("pixel_values",)
    size_rule = "its processor resizes every image to one size"

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        """Image-token arithmetic of a processor.

        Raises:
            UserError: the processor cuts images into crops.
        """
        if getattr(processing_class.image_processor, "do_pan_and_scan", None):
            raise UserError(
                "Gemma 3's processor has do_pan_and_scan: true, which makes several images of one; TRL cannot train "
                "with them. Set it to false in the policy's preprocessor_config.json."
            )
        return CountedGrid(
            lambda width, height: tokens_by_processing(processing_class, width, height), key=lambda width, height: None
        )

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        return [int(number) * processing_class.image_seq_length for number in batch["num_images"]]


class Gemma4Family(VisionFamily):
    """Gemma 4. Images are resized to fill the number of patches that the processor's `max_soft_tokens` allows."""

    name = "Gemma 4"
    model_types = ("gemma4",)
    processors = ("Gemma4Processor",)
    image_keys = ("pixel_values", "image_position_ids")
    pads_prompts = True
    size_rule = "its processor resizes every image to about one number of pixels"

    def image_grid(self, processing_class: "ProcessingClass") -> CountedGrid:
        return CountedGrid(lambda width, height: tokens_by_processing(processing_class, width, height))

    def limit_largest(self, processing_class: "ProcessingClass", max_pixels: int) -> None:
        """Set `max_soft_tokens` to the largest number that keeps the limit."""
        processor = processing_class.image_processor
        token = (processor.patch_size * processor.pooling_kernel_size) ** 2
        fitting = [number for number in SOFT_TOKENS if number * token <= max_pixels]
        if not fitting:
            raise UserError(
                f"image_max_pixels is {max_pixels}, but Gemma 4 resizes images to {SOFT_TOKENS[0] * token} pixels at "
                "least. Set it to that or more."
            )
        processor.max_soft_tokens = fitting[-1]

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        patches = (batch["image_position_ids"] >= 0).all(dim=-1).sum(dim=1)
        tokens = patches // processing_class.image_processor.pooling_kernel_size**2
        return numbers_by_row(tokens.tolist(), list(batch["num_images"]))

    def block_inputs(self, config: "PreTrainedConfig", embeddings: "Tensor") -> dict[str, "Tensor"]:
        return embeddings_of_blocks(config, embeddings)

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        import torch

        config = model.config.vision_config
        side = config.pooling_kernel_size
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        positions = torch.stack([columns.flatten(), rows.flatten()], dim=-1)
        return {
            "pixel_values": black(1, side * side, 3 * config.patch_size**2, like=like),
            "image_position_ids": positions[None].to(like.device),
        }


class Gemma4TextFamily(ModelFamily):
    """Gemma 4 without its vision tower."""

    name = "Gemma 4 (text)"
    model_types = ("gemma4_text",)

    def block_inputs(self, config: "PreTrainedConfig", embeddings: "Tensor") -> dict[str, "Tensor"]:
        return embeddings_of_blocks(config, embeddings)


def embeddings_of_blocks(config: "PreTrainedConfig", embeddings: "Tensor") -> dict[str, "Tensor"]:
    """Embeddings of each block, which the model otherwise looks up by token id."""
    width = config.hidden_size_per_layer_input
    if not width:
        return {}
    return {"per_layer_inputs": embeddings.new_zeros(*embeddings.shape[:2], config.num_hidden_layers, width)}
