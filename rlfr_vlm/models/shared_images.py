"""Process each image once per rollout, not once per response of its group.

GRPO repeats a row for each response, and TRL runs the processor on all of them, for generation and again for the
log-probs. Within a rollout the same image object gives the same features, so they are computed once and reused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor
from transformers import BatchFeature

from rlfr_vlm.models import ModelFamily, family_of_processor

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

    from rlfr_vlm.data.encode import ProcessingClass

ImageCache: TypeAlias = dict[int, tuple[object, dict[str, Tensor]]]  # id of an image -> the image and its features


@contextmanager
def images_processed_once(processing_class: "ProcessingClass") -> Iterator[None]:
    """Cache the image processor's output per image object while the context is open.

    Processors of families that cannot split a batch of images (`ModelFamily.splits_images`) are left as they are.
    """
    family = family_of_processor(processing_class)
    if not family.splits_images:
        yield
        return
    processor = processing_class.image_processor
    original_class = type(processor)
    cache: ImageCache = {}

    def call(self: "BaseImageProcessor", images: object = None, *args: object, **kwargs: object) -> BatchFeature:
        flat = _flatten(images)
        returns_torch = kwargs.get("return_tensors") in (None, "pt")  # Qwen's returns torch tensors for both
        if args or kwargs.get("videos") is not None or not returns_torch or not flat:
            return original_class.__call__(self, images, *args, **kwargs)
        return _assemble(family, flat, cache, lambda new: original_class.__call__(self, new, **kwargs))

    # Python looks calls up on the class and saving writes the class's name, so a wrapper object would not do: a
    # subclass of the same name does both.
    processor.__class__ = type(original_class.__name__, (original_class,), {"__call__": call})
    try:
        yield
    finally:
        processor.__class__ = original_class


def _flatten(images: object) -> list[object]:
    """Images of a batch in order, from None, one image, or nested lists as TRL and transformers pass them."""
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [images]
    return [image for part in images for image in _flatten(part)]


def _assemble(
    family: ModelFamily,
    images: list[object],
    cache: ImageCache,
    process: Callable[[list[object]], BatchFeature],
) -> BatchFeature:
    """Return the result of `process` for all images, calling it only for images that are not in the cache."""
    new = list({id(image): image for image in images if id(image) not in cache}.values())
    if new:
        features = process(new)
        for image, image_features in zip(new, family.split_images(features), strict=True):
            cache[id(image)] = (image, image_features)  # a reference keeps the image's id from being used again
    return BatchFeature(data=family.join_images([cache[id(image)][1] for image in images]))
