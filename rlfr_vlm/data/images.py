"""Open images as upright RGB, and reject images of extreme size or from outside the data set's folder."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.image_errors import why_unreadable
from rlfr_vlm.data.media_source import media_source, name_of
from rlfr_vlm.data.rows import BadRow

if TYPE_CHECKING:
    from PIL.Image import Image

MIN_SIDE = 2  # pixels; an image with a side of one pixel is a placeholder or damaged
MAX_RATIO = 200.0  # ratio of the sides; Qwen's processor rejects larger ones


@dataclass(frozen=True)
class ImageRules:
    """Limits on the location and size of images.

    Attributes:
        media_root: folder that paths are relative to and must stay inside; None is the working directory.
        min_side: smallest accepted side in pixels.
        max_ratio: largest accepted ratio of the sides.
        max_pixels: largest accepted number of pixels, checked before decoding, as a small file can be a huge image.
    """

    media_root: Path | None = None
    min_side: int = MIN_SIDE
    max_ratio: float = MAX_RATIO
    max_pixels: int = 64_000_000


def image_source(value: object, rules: ImageRules) -> bytes | Path:
    """Return the bytes of an embedded image, or the path of an image file.

    Raises:
        BadRow: the value is a URL, a missing file, or not an image.
    """
    return media_source(value, rules.media_root, "image")


def image_size(value: object, rules: ImageRules) -> tuple[int, int]:
    """Return width and height after EXIF rotation. Only the header is read.

    Raises:
        BadRow: as for `open_image`, except for errors that only occur while decoding.
    """
    from PIL import Image as PILImage

    if isinstance(value, PILImage.Image):
        return _checked_size(value, rules, "<image>")
    try:
        with _open_undecoded(value, rules) as image:
            return _checked_size(image, rules, name_of(value))
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        raise BadRow("image unreadable", f"{name_of(value, 'image')}: {error or type(error).__name__}") from None


def open_image(value: object, rules: ImageRules | None = None) -> "Image":
    """Decode an image to upright RGB. Transparent areas become white; an animation is reduced to its first frame.

    Raises:
        BadRow: the image cannot be found or decoded, or its size is not accepted; the detail names the image.
    """
    from PIL import Image as PILImage
    from PIL import ImageOps

    rules = rules or ImageRules()
    name = name_of(value)
    try:
        if isinstance(value, PILImage.Image):
            _checked_size(value, rules, name)
            return to_rgb(value)
        with _open_undecoded(value, rules) as image:
            _checked_size(image, rules, name)
            return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, TypeError, PILImage.DecompressionBombError) as error:
        raise BadRow("image unreadable", f"{name}: {error or type(error).__name__}") from None


def _open_undecoded(value: object, rules: ImageRules) -> "Image":
    from PIL import Image as PILImage

    source = image_source(value, rules)
    try:
        return PILImage.open(source if isinstance(source, Path) else io.BytesIO(source))
    except PILImage.UnidentifiedImageError:  # its message is the address of a buffer
        raise BadRow("image unreadable", f"{name_of(value, 'image')} {why_unreadable(source)}") from None
    except (OSError, SyntaxError, ValueError, TypeError, PILImage.DecompressionBombError) as error:
        raise BadRow("image unreadable", f"{name_of(value, 'image')}: {error or type(error).__name__}") from None


def _checked_size(image: "Image", rules: ImageRules, name: str) -> tuple[int, int]:
    width, height = image.size
    if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # EXIF orientations that rotate by 90 degrees
        width, height = height, width
    if min(width, height) < rules.min_side:
        raise BadRow("image too small", f"{name} is {width} x {height}, below {rules.min_side} pixels a side")
    if width * height > rules.max_pixels:
        raise BadRow("image too large", f"{name} is {width} x {height}, above image_pixel_ceiling {rules.max_pixels}")
    if max(width, height) > rules.max_ratio * min(width, height):
        raise BadRow("image ratio", f"{name} is {width} x {height}, above the ratio {rules.max_ratio:g}")
    return width, height


def to_rgb(image: "Image") -> "Image":
    """Convert any mode to RGB. 16-bit and float greys are scaled to 8 bits; transparent areas become white."""
    from PIL import Image as PILImage

    if image.mode in ("I", "I;16", "I;16L", "I;16B", "F"):
        return _scaled_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return PILImage.alpha_composite(PILImage.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _scaled_grey(image: "Image") -> "Image":
    """Scale to 8-bit grey: 16-bit values by 1/257, so that white stays white; others from 0 to their maximum."""
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image, dtype=np.float64)
    low, high = (0.0, 65535.0) if image.mode != "F" and values.max() > 255 else (0.0, max(255.0, float(values.max())))
    scaled = (values.clip(low, high) - low) / (high - low) * 255
    return PILImage.fromarray(scaled.round().astype(np.uint8))
