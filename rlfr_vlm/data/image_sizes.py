"""Sizes that images are resized to: limits of single images as qwen-vl-utils has them, and shrinking."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from rlfr_vlm.data.rows import BadRow, short

if TYPE_CHECKING:
    from PIL.Image import Image

SizeLimits: TypeAlias = dict[str, int]  # of one image, by `LIMIT_KEYS`

LIMIT_KEYS = ("min_pixels", "max_pixels", "resized_height", "resized_width")
QWEN_MIN_PIXELS = 4 * 28 * 28  # of an image without limits, in qwen-vl-utils


def limits_of(block: Mapping[str, object]) -> SizeLimits:
    """Return the limits on the size of its image that a block of a message has, as qwen-vl-utils names them.

    Raises:
        BadRow: a limit is no positive number, or one of the two sides is missing.
    """
    limits = {name: block[name] for name in LIMIT_KEYS if block.get(name) is not None}
    for name, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
            raise BadRow("image limits", f"{name} of an image block is {short(value)}; it is a number of pixels")
    if ("resized_height" in limits) != ("resized_width" in limits):
        raise BadRow("image limits", "an image block has one of resized_height and resized_width; give both")
    pixels = {name: int(value) for name, value in limits.items()}  # type: ignore[call-overload]
    if "max_pixels" in pixels:  # qwen-vl-utils' own smallest size may be larger
        pixels.setdefault("min_pixels", min(pixels["max_pixels"], QWEN_MIN_PIXELS))
    return pixels


def limited(image: "Image", limits: SizeLimits, patch_size: int) -> "Image":
    """Resize an image as qwen-vl-utils does for the limits of its block; without limits it stays as it is."""
    if not limits:
        return image
    from qwen_vl_utils import fetch_image

    limited_size(image.size, limits, patch_size)
    return fetch_image({"image": image, **limits}, image_patch_size=patch_size)


def limited_size(size: tuple[int, int], limits: SizeLimits, patch_size: int) -> tuple[int, int]:
    """Return the width and height that `limited` gives an image.

    Raises:
        BadRow: the limits contradict each other, or the image is too thin.
    """
    if not limits:
        return size
    from qwen_vl_utils.vision_process import SPATIAL_MERGE_SIZE, smart_resize

    side = patch_size * SPATIAL_MERGE_SIZE
    bounds = {name: limits[name] for name in ("min_pixels", "max_pixels") if name in limits}
    width, height = limits.get("resized_width", size[0]), limits.get("resized_height", size[1])
    try:
        rows, columns = smart_resize(height, width, side, **({} if "resized_width" in limits else bounds))
    except (ValueError, AssertionError) as error:
        raise BadRow("image limits", f"{limits}: {error}") from None
    if not rows or not columns:
        raise BadRow("image limits", f"{limits}: an image of {width} x {height} would have no pixels left")
    return columns, rows


def shrunk_size(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Return the width and height of an image after shrinking it to at most `pixels` pixels."""
    width, height = size
    if width * height <= pixels:
        return size
    factor = (pixels / (width * height)) ** 0.5
    return max(1, int(width * factor)), max(1, int(height * factor))


def shrink(image: "Image", pixels: int | None) -> "Image":
    """Return the image with at most `pixels` pixels; None means no limit."""
    size = image.size if pixels is None else shrunk_size(image.size, pixels)
    return image if size == image.size else image.resize(size)
