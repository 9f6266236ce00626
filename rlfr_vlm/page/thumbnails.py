"""Small copies of images, for logs and pages."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_bytes

THUMBNAIL_SIDE = 320  # pixels of the longer side
# A drawing, and anything small, is sharper as PNG; a photograph much smaller as JPEG.
JPEG_QUALITY = 80
SMALL_BYTES = 8_000


def encode_thumbnail(image: Any, side: int = THUMBNAIL_SIDE) -> tuple[bytes, str]:
    """The image, at most `side` pixels wide and high, as PNG, or as JPEG where that is smaller; and which it is."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    png, jpeg = io.BytesIO(), io.BytesIO()
    small.save(png, "png", optimize=True)
    if png.tell() <= SMALL_BYTES:
        return png.getvalue(), "png"
    small.save(jpeg, "jpeg", quality=JPEG_QUALITY)
    return min((png.getvalue(), "png"), (jpeg.getvalue(), "jpeg"), key=lambda one: len(one[0]))


def save_thumbnail(folder: Path, image: Any) -> Path:
    """Write a thumbnail under the digest of its pixels, unless it is there already."""
    pixels = image.convert("RGB")
    digest = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()[:20]
    for path in _known(folder, digest):
        return path
    content, kind = encode_thumbnail(pixels)
    path = folder / f"{digest}.{kind}"
    write_bytes(path, content)
    return path


def _known(folder: Path, digest: str) -> Iterator[Path]:
    return (path for kind in ("png", "jpeg") if (path := folder / f"{digest}.{kind}").exists())
