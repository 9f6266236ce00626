"""Small copies of images, for logs and pages."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_bytes

THUMBNAIL_SIDE = 320  # pixels of the longer side
# A drawing of few colours is smaller and sharper as PNG; a photograph as JPEG.
JPEG_QUALITY = 80


def encode_thumbnail(image: Any, side: int = THUMBNAIL_SIDE) -> tuple[bytes, str]:
    """The image, at most `side` pixels wide and high, as the smaller of PNG and JPEG; and which it is."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    encoded = []
    for name, settings in (("png", {"optimize": True}), ("jpeg", {"quality": JPEG_QUALITY})):
        stream = io.BytesIO()
        small.save(stream, name, **settings)
        encoded.append((stream.getvalue(), name))
    return min(encoded, key=lambda one: len(one[0]))


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
