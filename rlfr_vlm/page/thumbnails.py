"""Make thumbnails of images for logs and pages."""

import hashlib
import io
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.files import write_bytes
from rlfr_vlm.page.html import data_uri

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE = 320  # pixels of the longer side
JPEG_QUALITY = 80
PNG_BYTES = 8_000  # size up to which a thumbnail stays PNG, which is lossless; JPEG pays only for larger ones
PAGE_BYTES = 6_000_000  # total size of the thumbnails of a page


def encode_thumbnail(image: "Image", side: int = THUMBNAIL_SIDE) -> tuple[bytes, str]:
    """Scale an image down to at most `side` pixels and encode it; return the bytes and `png` or `jpeg`.

    Up to `PNG_BYTES` the result is PNG, beyond that the smaller of PNG and JPEG.
    """
    small = image.convert("RGB")
    small.thumbnail((side, side))
    png, jpeg = io.BytesIO(), io.BytesIO()
    small.save(png, "png", optimize=True)
    if png.tell() <= PNG_BYTES:
        return png.getvalue(), "png"
    small.save(jpeg, "jpeg", quality=JPEG_QUALITY)
    return min((png.getvalue(), "png"), (jpeg.getvalue(), "jpeg"), key=lambda encoded: len(encoded[0]))


def save_thumbnail(folder: Path, image: "Image") -> Path:
    """Write a thumbnail named by the digest of the image's pixels, unless the file exists; return its path."""
    pixels = image.convert("RGB")
    digest = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()[:20]
    for kind in ("png", "jpeg"):
        path = folder / f"{digest}.{kind}"
        if path.exists():
            return path
    content, kind = encode_thumbnail(pixels)
    path = folder / f"{digest}.{kind}"
    write_bytes(path, content)
    return path


@dataclass
class PageImages:
    """Thumbnails of a page, each embedded once, up to a total size.

    Attributes:
        side: longest side in pixels.
        limit: maximum total size in bytes, before base64.
        uris: data URIs of the images; the number of an image is its index.
    """

    side: int = THUMBNAIL_SIDE
    limit: int = PAGE_BYTES
    uris: list[str] = field(default_factory=list)
    _numbers: dict[Hashable, int | None] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, key: Hashable, source: "str | Path | Image") -> int | None:
        """Add an image; return its number, or None if it cannot be read or exceeds the limit.

        Args:
            key: identifies the image; an image with a known key is not read again.
            source: path, or a Pillow image.
        """
        if key not in self._numbers:
            self._numbers[key] = self._read(source) if isinstance(source, str | Path) else self._embed(source)
        return self._numbers[key]

    def _read(self, path: str | Path) -> int | None:
        import PIL.Image

        try:
            with PIL.Image.open(path) as image:
                return self._embed(image)
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):  # raised by Pillow's decoders
            return None

    def _embed(self, image: "Image") -> int | None:
        content, kind = encode_thumbnail(image, self.side)
        if self._bytes + len(content) > self.limit:
            return None
        self._bytes += len(content)
        self.uris.append(data_uri(content, kind))
        return len(self.uris) - 1


def side_for(count: int) -> int:
    """Longest side in pixels with which about `count` thumbnails fit into a page.

    >>> side_for(100), side_for(600), side_for(5000)
    (320, 200, 128)
    """
    return THUMBNAIL_SIDE if count <= 300 else 200 if count <= 1000 else 128
