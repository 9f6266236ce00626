"""What vision-language families have in common: vision tokens from config and tokenizer, counts, dummy images."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.family import ModelFamily
from rlfr_vlm.models.image_tokens import CountedGrid, ImageGrid, tokens_by_size

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass

MODALITY = r"(?:image|img|vision|video|audio|boi|eoi|boa|eoa)"
CONFIG_NAME = re.compile(rf"\w*{MODALITY}\w*_token_(?:id|index)")  # names of a config that hold token ids
TOKENIZER_NAME = re.compile(rf"\w*{MODALITY}\w*_(?:token|tag)")  # names of a processor or tokenizer that hold tokens


class VisionFamily(ModelFamily):
    """A family with a vision tower. Subclasses set the attributes, and override what their processor does differently.

    Attributes:
        token_pattern: matches further vision tokens that neither config nor processor name; empty for none.
        shrinks: whether a smaller image becomes fewer tokens.
        needed: attributes of the processor that must have a value, without which images become no tokens.
        size_rule: how the processor sizes images, for the message that refuses a limit.
    """

    language_tower = "model.language_model"
    vision_tower = "model.vision_tower"
    token_pattern: ClassVar[str] = ""
    shrinks: ClassVar[bool] = False
    needed: ClassVar[tuple[str, ...]] = ()
    size_rule: ClassVar[str] = "its processor has one size for all images"

    def image_token_id(self, config: "PreTrainedConfig") -> int | None:
        return int(config.image_token_id)

    def vision_token_texts(self, config: "PreTrainedConfig", processing_class: "ProcessingClass") -> list[str]:
        """Tokens of the config, the processor, the tokenizer and `token_pattern`, in the order of their ids.

        Raises:
            UserError: the image token is not in the tokenizer's vocabulary.
        """
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        vocabulary = tokenizer.get_vocab()
        added = getattr(tokenizer, "added_tokens_decoder", vocabulary.values())  # an ordinary word is no vision token
        ids = {index for index in _ids_of(config) if index in added}
        texts = {text for text, index in vocabulary.items() if index in ids}
        texts |= {text for text in _tokens_of(processing_class, tokenizer) if text in vocabulary}
        if self.token_pattern:
            texts |= {text for text in vocabulary if re.fullmatch(self.token_pattern, text)}
        if self.image_token_id(config) not in (vocabulary[text] for text in texts):
            raise UserError(
                f"The tokenizer has none of {self.name}'s vision tokens (the image token has id "
                f"{self.image_token_id(config)}), so banning them would ban nothing and the policy could sample an "
                "image placeholder. Load the processor that belongs to the policy, or set ban_vision_tokens: false."
            )
        return sorted(texts, key=vocabulary.__getitem__)

    def vision_token_ids(self, config: "PreTrainedConfig", processing_class: "ProcessingClass") -> list[int]:
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        vocabulary = tokenizer.get_vocab()
        return [vocabulary[text] for text in self.vision_token_texts(config, processing_class)]

    def check_processor(self, processing_class: "ProcessingClass") -> None:
        for name in self.needed:
            if getattr(processing_class, name, None) is None:
                raise UserError(
                    f"The processor of this {self.name} policy has no {name}, so the tokens of its images cannot be "
                    f"counted. Set {name} in the policy's processor_config.json, as the published checkpoint has it."
                )

    def image_grid(self, processing_class: "ProcessingClass") -> ImageGrid:
        """Image-token arithmetic of a processor."""
        return CountedGrid(lambda width, height: tokens_by_size(processing_class, width, height))

    def limit_pixels(
        self, processing_class: "ProcessingClass", min_pixels: int | None, max_pixels: int | None
    ) -> None:
        if min_pixels is not None:
            self.refuse_limit("image_min_pixels", min_pixels)
        if max_pixels is not None:
            self.limit_largest(processing_class, max_pixels)

    def limit_largest(self, processing_class: "ProcessingClass", max_pixels: int) -> None:
        """Set the processor's largest image; families that keep such a limit override this method.

        Raises:
            UserError: the processor cannot keep the limit.
        """
        self.refuse_limit("image_max_pixels", max_pixels)

    def refuse_limit(self, option: str, value: int) -> None:
        """Refuse a limit on pixels that the processor cannot keep.

        Raises:
            UserError: always.
        """
        raise UserError(f"{option} is {value}, but {self.name} cannot keep it: {self.size_rule}. Unset {option}.")

    def dummy_image_features(self, model: "PreTrainedModel", like: "Tensor") -> "Tensor":
        output = model.base_model.get_image_features(**self.dummy_image(model, like), return_dict=True)
        features = [output.pooler_output, getattr(output, "deepstack_features", None)]
        return sum(tensor.sum() for tensor in _tensors(features))  # type: ignore[return-value]

    def dummy_image(self, model: "PreTrainedModel", like: "Tensor") -> dict[str, "Tensor"]:
        """Keyword arguments of the model's `get_image_features` for a black image of the vision tower's size."""
        return {"pixel_values": black(1, 3, *sides(model.config.vision_config.image_size), like=like)}


def black(*shape: int, like: "Tensor") -> "Tensor":
    """Zeros of a shape, with device and type of `like`."""
    return like.new_zeros(shape)


def sides(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Height and width from a config's value, which may be one number."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def numbers_by_row(numbers: list[int], row_images: list[int]) -> list[int]:
    """Sum the numbers of images over the images of each row."""
    starts = [sum(row_images[:row]) for row in range(len(row_images))]
    return [sum(numbers[start : start + images]) for start, images in zip(starts, row_images, strict=True)]


def _ids_of(config: "PreTrainedConfig") -> Iterator[int]:
    """Ids of tokens of images, videos and sounds in a config."""
    for name, value in vars(config).items():
        if CONFIG_NAME.fullmatch(name) and isinstance(value, int):
            yield value


def _tokens_of(processing_class: "ProcessingClass", tokenizer: object) -> Iterator[str]:
    """Texts of tokens of images, videos and sounds that a processor or its tokenizer names."""
    named = dict(getattr(tokenizer, "special_tokens_map", {})) | vars(processing_class)
    for name, value in named.items():
        if TOKENIZER_NAME.fullmatch(name) and value is not None:
            yield str(value)


def _tensors(value: object) -> Iterator["Tensor"]:
    """Tensors in nested lists."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif value is not None:
        yield value  # type: ignore[misc]
