"""Describe one model family: its towers, its vision tokens, and how its processor turns images into tokens.

A family is a subclass of `ModelFamily` (text only) or `VisionFamily` (vision_family.py) in a file of its own, listed
in `rlfr_vlm/models/__init__.py`. README.md beside this file shows how to add one.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.image_tokens import ImageGrid

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass


class ModelFamily:
    """A family of text-only policies. Families with a vision tower override the methods below the attributes.

    Attributes:
        name: shown in messages.
        model_types: values of `config.model_type` that belong to the family.
        processors: class names of its processors.
        language_tower: dotted name of the module that holds the decoder blocks.
        blocks: name of the list of decoder blocks in that module.
        vision_tower: dotted name of the vision tower; None without one.
        image_keys: keys of a batch that hold images, pixels first; absent from a batch without images.
        images_by_row: the processor returns a row of images for each prompt, padded, instead of all images one after
            the other.
        images_are_runs: each image is one run of image tokens, with another token before and after it.
        splits_images: `split_images` and `join_images` take the image processor's output apart and together.
        pads_prompts: the processor pads prompts, or makes tensors of them, even if it is not asked to.
        takes_videos: videos train here; their batch keys and layout are those of Qwen2-VL (row_media.py).
        takes_image_numbers: the forward method takes `batch_num_images`, the number of images of each row.
        shares_prompts: model types whose passes over packed rows (shared_prefix/) are tested to equal row-wise ones.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    processors: ClassVar[tuple[str, ...]] = ()
    language_tower: ClassVar[str] = "model"
    blocks: ClassVar[str] = "layers"
    vision_tower: ClassVar[str | None] = None
    image_keys: ClassVar[tuple[str, ...]] = ()
    images_by_row: ClassVar[bool] = False
    images_are_runs: ClassVar[bool] = False
    splits_images: ClassVar[bool] = False
    pads_prompts: ClassVar[bool] = False
    takes_videos: ClassVar[bool] = False
    takes_image_numbers: ClassVar[bool] = False
    shares_prompts: ClassVar[tuple[str, ...]] = ()

    def image_token_id(self, config: "PreTrainedConfig") -> int | None:
        """Token id that stands in `input_ids` for each image feature; None for a text-only policy."""
        return None

    def video_token_id(self, config: "PreTrainedConfig") -> int | None:
        """Token id that stands in `input_ids` for each video feature; None where the family takes no videos."""
        return int(config.video_token_id) if self.takes_videos else None

    def vision_token_texts(self, config: "PreTrainedConfig", processing_class: "ProcessingClass") -> list[str]:
        """Tokens that only a prompt may hold, which a policy must not sample; none for a text-only policy."""
        return []

    def vision_token_ids(self, config: "PreTrainedConfig", processing_class: "ProcessingClass") -> list[int]:
        """Sorted ids of `vision_token_texts`."""
        return []

    def check_processor(self, processing_class: "ProcessingClass") -> None:
        """Check that a processor has what counting image tokens needs.

        Raises:
            UserError: a value is missing.
        """

    def image_grid(self, processing_class: "ProcessingClass") -> ImageGrid | None:
        """Image-token arithmetic of a processor; None for a text-only policy."""
        return None

    def row_image_tokens(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int] | None:
        """Number of image tokens that the images of each row of a batch need; None if the family cannot tell.

        Args:
            batch: has the keys `image_keys` and `num_images`, the number of images of each row.
        """
        return None

    def image_tiles(self, processing_class: "ProcessingClass", image: "Image") -> int | None:
        """Number of entries of an image in `pixel_values` where they are tiles; None where they are not."""
        return None

    def limit_pixels(
        self, processing_class: "ProcessingClass", min_pixels: int | None, max_pixels: int | None
    ) -> None:
        """Set a processor's limits on the pixels of an image, in the units in which it has them.

        Raises:
            UserError: the processor has no such limit, or the limit is out of its range.
        """
        raise UserError(
            f"image_min_pixels and image_max_pixels are {min_pixels} and {max_pixels}, but {self.name} take no "
            "images. Unset both."
        )

    def dummy_image_features(self, model: "PreTrainedModel", like: "Tensor") -> "Tensor | None":
        """Sum of the features of a black image, through the vision tower; None without one.

        Args:
            model: the policy, unwrapped.
            like: gives device and type.
        """
        return None

    def token_positions(
        self,
        model: "PreTrainedModel",
        input_ids: "Tensor",
        attention_mask: "Tensor",
        images: Mapping[str, "Tensor"],
    ) -> "Tensor":
        """Positions (B, P) or (3, B, P) that the model gives the tokens of rows without padding.

        Args:
            model: the policy, unwrapped.
            input_ids, attention_mask: (B, P).
            images: image arguments of the forward method.
        """
        return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)

    def continue_prompts(self, model: "PreTrainedModel", prompt_of_row: "Tensor", *, has_images: bool) -> None:
        """Set what the model keeps of prompts between forward passes, after one that ran each of them once.

        Args:
            model: the policy, unwrapped.
            prompt_of_row: (B,) number of each row's prompt.
            has_images: whether a prompt has an image.
        """

    def block_inputs(self, config: "PreTrainedConfig", embeddings: "Tensor") -> dict[str, "Tensor"]:
        """Further arguments of the language tower where it runs on embeddings (rows, S, D) without token ids."""
        return {}

    def split_images(self, features: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]]:
        """Split an image processor's output into one dict per image."""
        raise UserError(f"{self.name} has no images to split.")

    def join_images(self, images: Sequence[Mapping[str, "Tensor"]]) -> dict[str, "Tensor"]:
        """Put the results of `split_images` together as the image processor would return them."""
        raise UserError(f"{self.name} has no images to join.")
