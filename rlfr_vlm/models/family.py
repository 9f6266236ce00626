"""Describe one model family: its towers, its vision tokens, and how its processor turns images into tokens.

A family is a subclass of `ModelFamily` in a file of its own, listed in `rlfr_vlm/models/__init__.py`. README.md beside
this file shows how to add one.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from rlfr_vlm.data.encode import ProcessingClass


class ImageGrid(Protocol):
    """Image-token arithmetic of one processor, without running it."""

    @property
    def min_pixels(self) -> int:
        """Pixels that the processor enlarges an image to."""

    @property
    def side(self) -> int:
        """Pixels of the side of one image token."""

    def tokens(self, width: int, height: int) -> int:
        """Number of image tokens of an image of this size in pixels."""

    def resized(self, image: "Image") -> "Image":
        """The image at the size that the processor would give it."""


class ModelFamily:
    """A family of text-only policies. Families with a vision tower override the methods below the attributes.

    Attributes:
        name: shown in messages.
        model_types: values of `config.model_type` that belong to the family.
        processors: class names of its processors.
        language_tower: dotted name of the module whose `layers` are the decoder blocks.
        vision_tower: dotted name of the vision tower; None without one.
        vision_tokens: texts of the tokens that only a prompt may hold; a policy must not sample them.
        image_keys: keys of a batch that hold images; absent from a batch without images.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    processors: ClassVar[tuple[str, ...]] = ()
    language_tower: ClassVar[str] = "model"
    vision_tower: ClassVar[str | None] = None
    vision_tokens: ClassVar[tuple[str, ...]] = ()
    image_keys: ClassVar[tuple[str, ...]] = ()

    def image_token_id(self, config: "PreTrainedConfig") -> int | None:
        """Token id that stands in `input_ids` for each image feature; None for a text-only policy."""
        return None

    def vision_token_texts(self, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
        """Vision tokens that are in the tokenizer's vocabulary."""
        vocabulary = tokenizer.get_vocab()
        return [token for token in self.vision_tokens if token in vocabulary]

    def vision_token_ids(self, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
        """Sorted ids of the vision tokens.

        Raises:
            UserError: the family has a vision tower, but none of its vision tokens is in the vocabulary.
        """
        vocabulary = tokenizer.get_vocab()
        ids = sorted(vocabulary[token] for token in self.vision_token_texts(tokenizer))
        if self.vision_tower is not None and not ids:
            raise UserError(
                f"The tokenizer has none of {self.name}'s vision tokens ({', '.join(self.vision_tokens)}), so banning "
                "them would ban nothing and the policy could sample an image placeholder. Load the processor that "
                "belongs to the policy, or set ban_vision_tokens: false."
            )
        return ids

    def image_grid(self, processing_class: "ProcessingClass") -> ImageGrid | None:
        """Image-token arithmetic of a processor; None for a text-only policy."""
        return None

    def image_token_counts(self, batch: Mapping[str, "Tensor"], processing_class: "ProcessingClass") -> list[int]:
        """Number of image tokens of each image of a batch, in order.

        Args:
            batch: has the keys `image_keys`.
        """
        return []

    def dummy_image_features(self, tower: "nn.Module", like: "Tensor") -> "Tensor | None":
        """Features of a black image, through the vision tower; None if the family cannot make one.

        Args:
            tower: the vision tower.
            like: gives the device.
        """
        return None

    def split_images(self, features: Mapping[str, "Tensor"]) -> list[dict[str, "Tensor"]] | None:
        """Split an image processor's output into one dict per image; None if the family cannot."""
        return None

    def join_images(self, images: Sequence[Mapping[str, "Tensor"]]) -> dict[str, "Tensor"]:
        """Put the results of `split_images` together as the image processor would return them."""
        raise UserError(f"{self.name} has no images to join.")
