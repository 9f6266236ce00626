"""Process each image once per prompt, not once per response of its group, and once per rollout.

GRPO repeats a row for each response, and TRL runs the processor on all of them, for generation and again for the
log-probs. Within a rollout the same image object gives the same patches, so they are made once and handed out.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import BatchFeature


@contextmanager
def images_processed_once(processing_class: Any) -> Iterator[None]:
    """Inside, the processor's image processor keeps what it made of each image object.

    Only for processors of the Qwen2-VL kind, whose patches lie one image after the other and are counted by
    `image_grid_thw`; others are left alone.
    """
    processor = getattr(processing_class, "image_processor", None)
    if processor is None or not hasattr(processor, "merge_size"):
        yield
        return
    original_class = type(processor)
    made: dict[int, tuple[Any, dict[str, Any]]] = {}

    def call(self: Any, images: Any = None, *arguments: Any, **settings: Any) -> Any:
        flat = _flat(images)
        tensors = settings.get("return_tensors") in (None, "pt")  # this kind makes torch tensors either way
        if arguments or settings.get("videos") is not None or not tensors or not flat:
            return original_class.__call__(self, images, *arguments, **settings)
        return _assemble(flat, made, lambda new: original_class.__call__(self, new, **settings))

    # Calls are looked up on the class, and saving writes the class's name: a subclass of the same name does both.
    processor.__class__ = type(original_class.__name__, (original_class,), {"__call__": call})
    try:
        yield
    finally:
        processor.__class__ = original_class


def _flat(images: Any) -> list[Any]:
    """Images of a batch in order; None and lists of lists are as TRL and transformers pass them."""
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [images]
    return [image for part in images for image in _flat(part)]


def _assemble(
    flat: list[Any], made: dict[int, tuple[Any, dict[str, Any]]], process: Callable[[list[Any]], Any]
) -> Any:
    """What `process` would return for all images, calling it only for those not made yet."""
    new = list({id(image): image for image in flat if id(image) not in made}.values())
    if new:
        fresh = process(new)
        patches = torch.split(fresh["pixel_values"], fresh["image_grid_thw"].prod(dim=1).tolist())
        for image, pixels, grid in zip(new, patches, fresh["image_grid_thw"], strict=True):
            made[id(image)] = (image, {"pixel_values": pixels, "image_grid_thw": grid})  # holds on to the image's id
    parts = [made[id(image)][1] for image in flat]
    data = {
        "pixel_values": torch.cat([part["pixel_values"] for part in parts]),
        "image_grid_thw": torch.stack([part["image_grid_thw"] for part in parts]),
    }
    return BatchFeature(data=data)
