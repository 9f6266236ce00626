"""Images of a data set as they lie in its file: unpacked byte by byte, and known to be images before they are sent."""

import base64
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

SUFFIXES = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tiff"),
            (b"MM\0*", ".tiff"))  # fmt: skip
MOST_PIXELS = 178_956_970  # beyond which Pillow takes an image for an attack


class Unusable(ValueError):
    """The data set cannot be measured; the text says why."""


def picture_files(line: Any, folder: Path, file: Path) -> list[str]:
    """Files of a row's images. Bytes are those of the file; names are their hashes, so that nothing can be stale."""
    if "image" not in line:
        paths = line["image_path"]
        paths = paths if isinstance(paths, list) else [paths]
        return [str(path if os.path.isabs(path) else file.parent / "images" / path) for path in paths]
    cells = line["image"] if isinstance(line["image"], list) else [line["image"]]
    return [str(_unpacked(cell, folder)) for cell in cells]


def _unpacked(cell: str, folder: Path) -> Path:
    try:
        content = base64.b64decode(cell.rpartition("base64,")[2])
    except ValueError:
        raise Unusable("its image is no base64 text") from None
    suffix = next((suffix for magic, suffix in SUFFIXES if content.startswith(magic)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        suffix = ".webp"
    if suffix is None:
        raise Unusable("its image has no format that is known")
    path = folder / (hashlib.sha256(content).hexdigest()[:32] + suffix)
    if not path.exists():
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_bytes(content)
        scratch.replace(path)
    return path


@functools.lru_cache(maxsize=100_000)
def verify(path: Path) -> None:
    """Refuse what is no whole image, or too large to be opened safely; only a PNG's checksums tell of its pixels.

    Raises:
        Unusable: with the reason.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            image.verify()
    except Exception as error:  # Pillow's decoders raise what they like
        raise Unusable(f"its image {path.name} cannot be read: {error}") from None
    if width * height > MOST_PIXELS:
        raise Unusable(f"its image {path.name} has {width} x {height} pixels; {MOST_PIXELS} in all are the most")
