"""Images and videos of a row in a form that a file of rows may hold: paths, or data URLs of embedded ones."""

import base64
import io
from collections.abc import Iterable
from pathlib import Path

from rlfr_vlm.data.images import ImageRules, image_source, resolve
from rlfr_vlm.data.rows import Row
from rlfr_vlm.files import JsonObject


def stored_media(row: Row, rules: ImageRules, folder: Path) -> JsonObject:
    """Return the columns images and, where there are any, videos of a converted row for a file in `folder`."""
    columns: JsonObject = {"images": stored_images(row["images"], rules, folder)}
    if row.get("videos"):
        columns["videos"] = [_stored_video(value, rules, folder) for value in row["videos"]]
    return columns


def _stored_video(value: object, rules: ImageRules, folder: Path) -> object:
    """A list of frames as `stored_images` returns them; a file's path; an embedded file as base64."""
    if isinstance(value, list | tuple):
        return stored_images(value, rules, folder)
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray):
        return {"bytes": base64.b64encode(value).decode()}
    path = resolve(str(value), rules)
    return str(path.relative_to(folder.resolve()) if path.is_relative_to(folder.resolve()) else path)


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
            result.append(str(source.relative_to(folder) if source.is_relative_to(folder) else source))
        else:
            result.append("data:image/png;base64," + base64.b64encode(source).decode())
    return result


def _png(image: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")  # type: ignore[attr-defined]
    return stream.getvalue()
