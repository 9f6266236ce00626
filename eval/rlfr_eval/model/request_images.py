"""Images for requests: the bytes that the benchmark has, or the JPEG that VLMEvalKit makes of them."""

import base64
import io
from pathlib import Path

from rlfr_vlm.errors import UserError

TYPES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".gif": "gif", ".webp": "webp", ".bmp": "bmp",
         ".tiff": "tiff"}  # fmt: skip
SMALLEST_EDGE = 100  # pixels, to which VLMEvalKit enlarges


def data_url(path: Path, jpeg: bool = False) -> str:
    """An image as a data URL.

    Args:
        jpeg: as VLMEvalKit 0.0.20 sends it: JPEG of Pillow's quality 75, transparency on black, small ones enlarged.

    Raises:
        UserError: no JPEG can be made of it.
    """
    content, kind = path.read_bytes(), TYPES.get(path.suffix.lower(), "png")
    if jpeg:
        try:
            content, kind = as_jpeg(content), "jpeg"
        except (OSError, ValueError, SyntaxError) as error:  # cut off after its header, say
            raise UserError(f"{path} cannot be made a JPEG: {error}. Mend the image, or ask without --jpeg.") from None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def as_jpeg(content: bytes) -> bytes:
    """What VLMEvalKit's `encode_image_to_base64` makes of an image."""
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
