"""Open images late, and only good ones: upright, RGB, of a sane size, from inside the data set's own folder."""

import base64
import binascii
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.rows import BadRow

if TYPE_CHECKING:
    from PIL.Image import Image

DATA_URL = re.compile(r"^data:image/[\w.+-]+;base64,", re.IGNORECASE)
BASE64_LENGTH = 200  # a longer text of nothing but these characters, and no dot, is an image
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")


@dataclass(frozen=True)
class ImageRules:
    """What is accepted.

    Attributes:
        media_root: relative paths start here and never lead outside; None is the working directory.
        min_side: shortest accepted side in pixels.
        max_ratio: largest accepted ratio of the sides; Qwen's processor refuses more than 200.
        max_pixels: largest accepted image, before it is decoded; a small file can hold a huge one.
    """

    media_root: Path | None = None
    min_side: int = 2
    max_ratio: float = 200.0
    max_pixels: int = 64_000_000


def name_of(value: Any) -> str:
    """What to call an image in a message; never its bytes."""
    if isinstance(value, dict):
        return str(value.get("path") or "<embedded image>")
    return value if isinstance(value, str) and len(value) < BASE64_LENGTH else f"<{type(value).__name__}>"


def resolve(path: str, rules: ImageRules) -> Path:
    """The file a row names.

    Raises:
        BadRow: it leads outside the media folder, or there is no such file.
    """
    root = (rules.media_root or Path.cwd()).resolve()
    path = path.removeprefix("file://")
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root):
        raise BadRow("image outside", f"{path!r} leads outside {root}; set media_root to the folder of the images")
    if not resolved.is_file():
        raise BadRow("image missing", f"{path!r} does not exist under {root}")
    return resolved


def read_bytes(value: Any, rules: ImageRules) -> bytes | Path:
    """Where an image's bytes are: in hand, or in a file.

    Raises:
        BadRow: a URL, a missing file, or something that is no image.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise BadRow("image unreadable", f"it is a {type(value).__name__}")
    if value.startswith(("http://", "https://")):
        raise BadRow("image is a URL", f"{value[:100]!r}: download the images and name the files")
    if found := DATA_URL.match(value):
        return _decode(value[found.end() :])
    if len(value) > BASE64_LENGTH and BASE64.fullmatch(value):
        return _decode(value)
    try:
        return resolve(value, rules)
    except (OSError, ValueError) as error:  # a name no file can have
        raise BadRow("image missing", f"{value[:BASE64_LENGTH]!r}: {error}") from None


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRow("image unreadable", f"its base64 text is broken: {error}") from None


def image_size(value: Any, rules: ImageRules) -> tuple[int, int]:
    """Width and height as shown (after EXIF rotation), read from the header alone.

    Raises:
        BadRow: as for `open_image`, but for what only decoding finds.
    """
    from PIL import Image as PILImage

    if isinstance(value, PILImage.Image):
        return _checked_size(value, rules, "<image>")
    try:
        with _opened(value, rules) as image:
            return _checked_size(image, rules, name_of(value))
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        raise BadRow("image unreadable", f"{name_of(value)}: {error}") from None


def open_image(value: Any, rules: ImageRules | None = None) -> "Image":
    """Decode an image to upright RGB. Transparency becomes white; of an animation the first frame is taken.

    Raises:
        BadRow: it cannot be found or decoded, or its size is not accepted; the detail names it.
    """
    from PIL import Image as PILImage
    from PIL import ImageOps

    rules = rules or ImageRules()
    name = name_of(value)
    try:
        if isinstance(value, PILImage.Image):
            _checked_size(value, rules, name)
            return to_rgb(value)
        with _opened(value, rules) as image:
            _checked_size(image, rules, name)
            return to_rgb(ImageOps.exif_transpose(image))
    except (OSError, SyntaxError, ValueError, TypeError, PILImage.DecompressionBombError) as error:
        raise BadRow("image unreadable", f"{name}: {error}") from None


def _opened(value: Any, rules: ImageRules) -> "Image":
    from PIL import Image as PILImage

    source = read_bytes(value, rules)
    try:
        return PILImage.open(source if isinstance(source, Path) else io.BytesIO(source))
    except (OSError, SyntaxError, ValueError, TypeError, PILImage.DecompressionBombError) as error:
        raise BadRow("image unreadable", f"{name_of(value)}: {error}") from None


def _checked_size(image: "Image", rules: ImageRules, name: str) -> tuple[int, int]:
    width, height = image.size
    if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # lies on its side
        width, height = height, width
    if min(width, height) < rules.min_side:
        raise BadRow("image too small", f"{name} is {width} x {height}, below image_min_side {rules.min_side}")
    if width * height > rules.max_pixels:
        raise BadRow("image too large", f"{name} is {width} x {height}, above image_pixel_ceiling {rules.max_pixels}")
    if max(width, height) > rules.max_ratio * min(width, height):
        raise BadRow("image ratio", f"{name} is {width} x {height}, above image_max_ratio {rules.max_ratio:g}")
    return width, height


def to_rgb(image: "Image") -> "Image":
    """Any mode to RGB: 16-bit and float greys are scaled down, transparency is laid on white."""
    from PIL import Image as PILImage

    if image.mode in ("I", "I;16", "I;16L", "I;16B", "F"):
        return _scaled_grey(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return PILImage.alpha_composite(PILImage.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _scaled_grey(image: "Image") -> "Image":
    """8-bit grey: 16-bit values by 257, so that white stays white; others from their own range."""
    import numpy as np
    from PIL import Image as PILImage

    values = np.asarray(image, dtype=np.float64)
    low, high = (0.0, 65535.0) if image.mode != "F" and values.max() > 255 else (0.0, max(255.0, float(values.max())))
    scaled = (values.clip(low, high) - low) / (high - low) * 255
    return PILImage.fromarray(scaled.round().astype(np.uint8))
