"""Open images as upright RGB, and reject images of extreme size or from outside the data set's folder."""

import base64
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rlfr_vlm.data.image_errors import why_missing, why_unreadable
from rlfr_vlm.data.rows import BadRow, short

if TYPE_CHECKING:
    from PIL.Image import Image

SizeLimits: TypeAlias = dict[str, int]  # of one image, by `LIMIT_KEYS`

URL = re.compile(r"^([A-Za-z][\w+.-]*)://")
DATA_URL = re.compile(r"^data:image/[\w.+-]+;base64,", re.IGNORECASE)
BASE64_LENGTH = 200  # characters; a longer text that consists of base64 characters is an image, not a path
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
MIN_SIDE = 2  # pixels; an image with a side of one pixel is a placeholder or damaged
LIMIT_KEYS = ("min_pixels", "max_pixels", "resized_height", "resized_width")
QWEN_MIN_PIXELS = 4 * 28 * 28  # of an image without limits, in qwen-vl-utils
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


def name_of(value: object) -> str:
    """Return a short name of an image for messages, without its bytes."""
    if isinstance(value, dict):
        return str(value.get("path") or "<embedded image>")
    return value if isinstance(value, str) and len(value) < BASE64_LENGTH else f"<{type(value).__name__}>"


def resolve(path: str, rules: ImageRules) -> Path:
    """Return the file at a path of a row.

    Raises:
        BadRow: the path leads outside the media folder, or there is no such file.
    """
    path = re.sub(r"^file://", "", path, flags=re.IGNORECASE)
    try:
        root = (rules.media_root or Path.cwd()).resolve()
        resolved = (root / path).resolve()
    except RuntimeError:  # Python 3.13 does not raise
        raise BadRow("image missing", f"{path!r} is a link that leads to itself") from None
    if not resolved.is_relative_to(root):
        raise BadRow("image outside", f"{path!r} leads outside {root}; set media_root to the folder of the images")
    if not resolved.is_file():
        raise BadRow("image missing", f"{path!r} {why_missing(root, path)}")
    return resolved


def image_source(value: object, rules: ImageRules) -> bytes | Path:
    """Return the bytes of an embedded image, or the path of an image file.

    Raises:
        BadRow: the value is a URL, a missing file, or not an image.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
        if value is None or value == "":
            raise BadRow("image unreadable", "the image's record has neither bytes nor a path")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise BadRow("image unreadable", f"the image is {short(value)}; it must be a path, bytes or base64")
    if (match := URL.match(value.strip())) and match[1].lower() != "file":
        raise BadRow("image is a URL", f"{value[:100]!r}: download the images and name the files")
    if match := DATA_URL.match(value):
        return _decode_base64(value[match.end() :])
    if value[:5].lower() == "data:":
        raise BadRow("image unreadable", f"{value[:40]!r} is no data URL of an image in base64")
    if len(value) > BASE64_LENGTH and BASE64.fullmatch(value):
        return _decode_base64(value)
    try:
        return resolve(value, rules)
    except (OSError, ValueError) as error:  # the text is not a valid file name
        raise BadRow("image missing", f"{value[:BASE64_LENGTH]!r}: {error}") from None


def _decode_base64(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise BadRow("image unreadable", f"the base64 text is broken: {error}") from None


def decode_base64(text: str) -> bytes:
    """Return the bytes of a base64 text, which may have white space.

    Raises:
        ValueError: the text is broken.
    """
    return base64.b64decode("".join(text.split()), validate=True)


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
        raise BadRow("image unreadable", f"{name_of(value)}: {error or type(error).__name__}") from None


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
        raise BadRow("image unreadable", f"{name_of(value)} {why_unreadable(source)}") from None
    except (OSError, SyntaxError, ValueError, TypeError, PILImage.DecompressionBombError) as error:
        raise BadRow("image unreadable", f"{name_of(value)}: {error or type(error).__name__}") from None


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
    found = {name: int(value) for name, value in limits.items()}  # type: ignore[call-overload]
    if "max_pixels" in found and "min_pixels" not in found:  # else qwen-vl-utils takes its own smallest size
        found["min_pixels"] = min(found["max_pixels"], QWEN_MIN_PIXELS)
    return found


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
