"""Small copies of images, for logs and pages."""

import hashlib
import io
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_vlm.files import write_bytes
from rlfr_vlm.page.html import data_uri

THUMBNAIL_SIDE = 320  # pixels of the longer side
# A drawing, and anything small, is sharper as PNG; a photograph much smaller as JPEG.
JPEG_QUALITY = 80
SMALL_BYTES = 8_000
PAGE_BYTES = 6_000_000  # of all thumbnails of a page


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


@dataclass
class PageImages:
    """The thumbnails of a page, each once, within a size; what does not fit, or cannot be read, has no number.

    Attributes:
        uris: the images as data URIs, by their number.
        side: longest side in pixels.
    """

    side: int = THUMBNAIL_SIDE
    limit: int = PAGE_BYTES
    uris: list[str] = field(default_factory=list)
    _numbers: dict[Hashable, int | None] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, key: Hashable, source: Any) -> int | None:
        """Number of an image.

        Args:
            key: the same for the same image.
            source: a path, or an image of Pillow.
        """
        if key not in self._numbers:
            self._numbers[key] = self._read(source) if isinstance(source, str | Path) else self._embed(source)
        return self._numbers[key]

    def _read(self, path: str | Path) -> int | None:
        from PIL import Image

        try:
            with Image.open(path) as image:
                return self._embed(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # all that Pillow's readers raise
            return None

    def _embed(self, image: Any) -> int | None:
        content, kind = encode_thumbnail(image, self.side)
        if self._bytes + len(content) > self.limit:
            return None
        self._bytes += len(content)
        self.uris.append(data_uri(content, kind))
        return len(self.uris) - 1


def side_for(count: int) -> int:
    """Longest side of thumbnails so that about `count` of them fit into a page.

    >>> side_for(100), side_for(600), side_for(5000)
    (320, 200, 128)
    """
    return THUMBNAIL_SIDE if count <= 300 else 200 if count <= 1000 else 128
