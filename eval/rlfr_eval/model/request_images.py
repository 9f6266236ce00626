"""Encode images for requests: the data set's bytes, or the JPEG that VLMEvalKit would send."""

import base64
import io
from pathlib import Path

from rlfr_vlm.errors import UserError

TYPES = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".gif": "gif",
    ".webp": "webp",
    ".bmp": "bmp",
    ".tiff": "tiff",
}
SMALLEST_EDGE = 100  # pixels; VLMEvalKit enlarges smaller images


def data_url(path: Path, jpeg: bool = False) -> str:
    """Return an image file as a data URL.

    Args:
        jpeg: convert as VLMEvalKit 0.0.20: JPEG with quality 75, transparency on black, small images enlarged.

    Raises:
        UserError: the image cannot be converted to JPEG.
    """
    content, kind = path.read_bytes(), TYPES.get(path.suffix.lower(), "png")
    if jpeg:
        try:
            content, kind = as_jpeg(content), "jpeg"
        except (OSError, ValueError, SyntaxError) as error:  # for example an image truncated after its header
            raise UserError(f"{path} cannot be made a JPEG: {error}. Mend the image, or ask without --jpeg.") from None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def as_jpeg(content: bytes) -> bytes:
    """Convert an image to JPEG as VLMEvalKit's `encode_image_to_base64` does."""
    from PIL import Image

    image: Image.Image = Image.open(io.BytesIO(content))
    if image.mode in ("RGBA", "P", "LA") or image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if min(image.size) < SMALLEST_EDGE:
        factor = SMALLEST_EDGE / min(image.size)
        image = image.resize((int(image.width * factor), int(image.height * factor)))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG")
    return buffer.getvalue()
