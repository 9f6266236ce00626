"""Process each image once per rollout, not once per response of its group.

GRPO repeats a row for each response, and TRL runs the processor on all of them, for generation and again for the
log-probs. Within a rollout the same image object gives the same features, so they are computed once and reused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import BatchFeature

from rlfr_vlm.models import ModelFamily, family_of_processor

Features = dict[str, Tensor]


@contextmanager
def images_processed_once(processing_class: Any) -> Iterator[None]:
    """Cache the image processor's output per image object while the context is open.

    Processors of families that cannot split a batch of images (`ModelFamily.split_images`) are left as they are.
    """
    family = family_of_processor(processing_class)
    if not family.image_keys:
        yield
        return
    processor = processing_class.image_processor
    original_class = type(processor)
    cache: dict[int, tuple[Any, Features]] = {}

    def call(self: Any, images: Any = None, *args: Any, **kwargs: Any) -> Any:
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


def _flatten(images: Any) -> list[Any]:
    """Images of a batch in order, from None, one image, or nested lists as TRL and transformers pass them."""
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [images]
    return [image for part in images for image in _flatten(part)]


def _assemble(
    family: ModelFamily,
    images: list[Any],
    cache: dict[int, tuple[Any, Features]],
    process: Callable[[list[Any]], BatchFeature],
) -> BatchFeature:
    """What `process` would return for all images, calling it only for images that are not in the cache."""
    new = list({id(image): image for image in images if id(image) not in cache}.values())
    if new:
        features = process(new)
        split = family.split_images(features)
        if split is None:
            return process(images)
        for image, own_features in zip(new, split, strict=True):
            cache[id(image)] = (image, own_features)  # a reference keeps the image's id from being used again
    return BatchFeature(data=family.join_images([cache[id(image)][1] for image in images]))
