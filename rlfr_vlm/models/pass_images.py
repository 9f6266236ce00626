"""Hand images to TRL's log-prob pass as a family's forward method takes them (read in TRL 1.16.0).

TRL slices a batch's images for each chunk of rows by `num_images`. That is wrong where a processor returns a row of
images for each prompt, and it leaves out `batch_num_images`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlfr_vlm.models.family import ModelFamily
from rlfr_vlm.models.towers import unwrap

if TYPE_CHECKING:
    from PIL.Image import Image

    from rlfr_vlm.data.encode import ProcessingClass


def count_rows_of_images(family: ModelFamily, batch: dict[str, Any]) -> None:
    """Write one image per row into `num_images` where pixels have one row for each prompt."""
    if family.images_by_row and batch.get("num_images") is not None:
        batch["num_images"] = [1] * len(batch["num_images"])


def counted_images(
    family: ModelFamily,
    tensors: Mapping[str, Tensor],
    row_images: "Sequence[Sequence[Image]]",
    processing_class: "ProcessingClass",
) -> "dict[str, Tensor | list[int]]":
    """Keyword arguments of TRL's pass for encoded rows: their tensors, and the numbers by which TRL slices them.

    Args:
        tensors: of the processor, without token ids and mask.
        row_images: images of each row.
    """
    arguments: dict[str, Tensor | list[int]] = dict(tensors)
    if any(row_images):
        arguments["num_images"] = [len(images) for images in row_images]
        tiles = [[family.image_tiles(processing_class, image) for image in images] for images in row_images]
        if any(number is not None for numbers in tiles for number in numbers):
            arguments["num_tiles"] = [sum(number or 0 for number in numbers) for numbers in tiles]
    return arguments


def prepared_pass(family: ModelFamily, arguments: dict[str, Any]) -> list[int] | None:
    """Change the keyword arguments of TRL's pass in place; returns the number of images of each row, if needed."""
    arguments.pop("batch_num_images", None)  # the processor's, which TRL would pass on to its own method
    count_rows_of_images(family, arguments)
    return arguments.get("num_images") if family.takes_image_numbers else None


@contextmanager
def with_image_numbers(policy: nn.Module, numbers: list[int] | None) -> Iterator[None]:
    """Add `batch_num_images` to forward passes inside the context, which take the rows of a batch in order.

    Args:
        policy: the model that runs.
        numbers: images of each row of the batch; None adds nothing.
    """
    if numbers is None:
        yield
        return
    start = 0

    def add_numbers(
        _module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
        nonlocal start
        rows = len(kwargs["input_ids"])
        chunk = [number for number in numbers[start : start + rows] if number]  # rows of text count no images
        start += rows
        return args, {**kwargs, "batch_num_images": torch.tensor(chunk, device=kwargs["input_ids"].device)}

    hook = unwrap(policy).base_model.register_forward_pre_hook(add_numbers, with_kwargs=True)  # type: ignore
    try:
        yield
    finally:
        hook.remove()
