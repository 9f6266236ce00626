"""Rows as lines of JSON, with their images and videos as paths, or embedded as base64."""

import base64
import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

from rlfr_vlm.data.images import ImageRules, image_source
from rlfr_vlm.data.media_source import media_source
from rlfr_vlm.data.prompts import mapped_blocks
from rlfr_vlm.data.rows import MEDIA_KEYS, Block, Messages, Row
from rlfr_vlm.data.videos import unwrapped
from rlfr_vlm.files import JsonObject


def stored_media(row: Row, rules: ImageRules, folder: Path) -> JsonObject:
    """Return the columns images and, where there are any, videos of a converted row for a file in `folder`."""
    columns: JsonObject = {"images": stored_images(row["images"], rules, folder)}
    if row.get("videos"):
        columns["videos"] = [_stored_video(value, rules, folder) for value in row["videos"]]
    return columns


def _stored_video(value: object, rules: ImageRules, folder: Path) -> object:
    """A list of frames as `stored_images` returns them; a file's path; an embedded file as a data URL."""
    value = unwrapped(value)
    if isinstance(value, list | tuple):
        return stored_images(value, rules, folder)
    source = media_source(value, rules.media_root, "video")
    if isinstance(source, Path):
        return _path_from(source, folder.resolve())
    return "data:video/mp4;base64," + base64.b64encode(source).decode()


def _path_from(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def stored_images(values: Iterable[object], rules: ImageRules, folder: Path) -> list[str]:
    """Return images in a form that a file in `folder` may hold.

    An image file gets its path, relative to `folder` if it lies there and absolute otherwise; any other image is
    embedded as a data URL of its own bytes.

    Args:
        values: images of a row as the data set has them.
        rules: where paths of the data set lead.
        folder: the folder of the file that is written.
    """
    folder = folder.resolve()
    result = []
    for value in values:
        source = _png(value) if hasattr(value, "save") else image_source(value, rules)
        if isinstance(source, Path):
            result.append(_path_from(source, folder))
        else:
            result.append("data:image/png;base64," + base64.b64encode(source).decode())
    return result


def _png(image: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")  # type: ignore[attr-defined]
    return stream.getvalue()


def without_embedded(prompt: str | Messages) -> str | Messages:
    """Return a prompt whose blocks have no embedded images and videos; they stand in the columns of the row."""
    return prompt if isinstance(prompt, str) else mapped_blocks(prompt, _without_embedded)


def _without_embedded(block: Block) -> Block:
    if block.get("type") not in MEDIA_KEYS:
        return block
    return {key: value for key, value in block.items() if isinstance(value, str | int | float)}


def line_of(row: JsonObject) -> bytes:
    """Return a row as one line of JSON."""
    return json.dumps(_plain(row), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"


def _plain(value: object) -> object:
    """Return a value that JSON has: bytes become base64, numbers that are not finite null, other types their text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return base64.b64encode(value).decode() if isinstance(value, bytes | bytearray) else str(value)
