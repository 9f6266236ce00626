"""Unpack the images of a data set without re-encoding, and verify them before they are sent."""

import base64
import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

SUFFIXES = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tiff"),
    (b"MM\0*", ".tiff"),
)
MAX_PIXELS = 178_956_970  # Pillow refuses larger images as decompression bombs


class Unusable(ValueError):
    """The data set cannot be evaluated; the text says why."""


def image_files(row: "pandas.Series", folder: Path, file: Path) -> list[str]:
    """Return the files of a row's images. Embedded images are written unchanged and named by their hash.

    Args:
        folder: folder for embedded images.
        file: the data set's file, beside which relative paths are looked up.
    """
    if "image" not in row:
        paths = row["image_path"]
        paths = paths if isinstance(paths, list) else [paths]
        return [str(path if os.path.isabs(path) else file.parent / "images" / path) for path in paths]
    cells = row["image"] if isinstance(row["image"], list) else [row["image"]]
    return [str(_unpack(cell, folder)) for cell in cells]


def _unpack(cell: str, folder: Path) -> Path:
    try:
        content = base64.b64decode(cell.rpartition("base64,")[2])
    except ValueError:
        raise Unusable("its image is no base64 text") from None
    suffix = next((suffix for magic, suffix in SUFFIXES if content.startswith(magic)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        suffix = ".webp"
    if suffix is None:
        raise Unusable("its image has no known format")
    path = folder / (hashlib.sha256(content).hexdigest()[:32] + suffix)
    if not path.exists():
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(content)
        scratch.replace(path)
    return path


@functools.lru_cache(maxsize=100_000)
def verify(path: Path) -> None:
    """Check that a file is an image of an acceptable size. Pixel data are checked for PNG only, by its checksums.

    Raises:
        Unusable: the file is no image, is truncated, or has too many pixels.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except Exception as error:  # Pillow decoders raise arbitrary exceptions
        raise Unusable(f"its image {path.name} cannot be read: {error}") from None
    if width * height > MAX_PIXELS:
        raise Unusable(f"its image {path.name} has {width} x {height} pixels; at most {MAX_PIXELS} are allowed")
