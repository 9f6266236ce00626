"""Find an image or a video: the bytes of an embedded one, or a file inside the data set's folder."""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from rlfr_vlm.data.image_errors import why_missing
from rlfr_vlm.data.rows import BadRow, short

Kind: TypeAlias = Literal["image", "video"]

URL = re.compile(r"^([A-Za-z][\w+.-]*)://")
BASE64_LENGTH = 200  # characters; a longer text that consists of base64 characters is embedded, not a path
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
RECORD_KEYS = ("bytes", "path", "url")


def media_source(value: object, media_root: Path | None, kind: Kind) -> bytes | Path:
    """Return the bytes of an embedded image or video, or the path of its file.

    Args:
        value: path, bytes, base64, data URL, or a record `{"bytes", "path"}`.
        media_root: see `resolve`.

    Raises:
        BadRow: the value is a URL, a missing file, or of another type.
    """
    if isinstance(value, Mapping):
        value = next((value[key] for key in RECORD_KEYS if value.get(key)), None)
        if value is None:
            raise BadRow(f"{kind} unreadable", f"the {kind}'s record has neither bytes nor a path")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise BadRow(f"{kind} unreadable", f"the {kind} is {short(value)}; it must be a path, bytes or base64")
    if (match := URL.match(value.strip())) and match[1].lower() != "file":
        raise BadRow(f"{kind} is a URL", f"{value[:100]!r}: download the {kind}s and name the files")
    if match := re.match(rf"data:{kind}/[\w.+-]+;base64,", value, re.IGNORECASE):
        return _decode_base64(value[match.end() :], kind)
    if value[:5].lower() == "data:":
        raise BadRow(f"{kind} unreadable", f"{value[:40]!r} is no data URL with base64 of kind {kind}")
    if len(value) > BASE64_LENGTH and BASE64.fullmatch(value):
        return _decode_base64(value, kind)
    try:
        return resolve(value, media_root, kind)
    except (OSError, ValueError) as error:  # the text is not a valid file name
        raise BadRow(f"{kind} missing", f"{value[:BASE64_LENGTH]!r}: {error}") from None


def resolve(path: str, media_root: Path | None, kind: Kind) -> Path:
    """Return the file at a path of a row.

    Args:
        media_root: folder that paths are relative to and must stay inside; None is the working directory.

    Raises:
        BadRow: the path leads outside the media folder, or there is no such file.
    """
    path = re.sub(r"^file://", "", path, flags=re.IGNORECASE)
    try:
        root = (media_root or Path.cwd()).resolve()
        resolved = (root / path).resolve()
    except RuntimeError:  # Python 3.13 does not raise
        raise BadRow(f"{kind} missing", f"{path!r} is a link that leads to itself") from None
    if not resolved.is_relative_to(root):
        raise BadRow(f"{kind} outside", f"{path!r} leads outside {root}; set media_root to the folder of the {kind}s")
    if not resolved.is_file():
        raise BadRow(f"{kind} missing", f"{path!r} {why_missing(root, path)}")
    return resolved


def name_of(value: object, kind: Kind = "image") -> str:
    """Return a short name of an image or a video file for messages, without its bytes."""
    if isinstance(value, dict):
        return str(value.get("path") or f"<embedded {kind}>")
    return value if isinstance(value, str) and len(value) < BASE64_LENGTH else f"<{type(value).__name__}>"


def _decode_base64(text: str, kind: Kind) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise BadRow(f"{kind} unreadable", f"the base64 text is broken: {error}") from None
