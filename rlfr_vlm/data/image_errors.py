"""Say why an image cannot be found or read: what is there instead, and what is meant."""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

HEAD = 200  # bytes of a file that tell what it is
WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\\\/]")
FOUND_INSTEAD = (
    (b"version https://git-lfs", "is a pointer of Git LFS; run `git lfs pull` in its repository"),
    (b"<svg", "is an SVG; convert it to PNG"),
    (b"<?xml", "is XML, perhaps an SVG; convert it to PNG"),
    (b"<!doctype html", "is a web page; download the image itself"),
    (b"<html", "is a web page; download the image itself"),
    (b"%pdf", "is a PDF; convert its page to PNG"),
    (b"{", "is JSON, perhaps the error of a server; download the image again"),
)


def why_unreadable(source: bytes | Path) -> str:
    """Return what bytes or a file are that hold no image, after the first bytes."""
    if isinstance(source, Path):
        with source.open("rb") as stream:
            head = stream.read(HEAD)
    else:
        head = source[:HEAD]
    if not head:
        return "is empty"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kind = next((kind for beginning, kind in FOUND_INSTEAD if start.startswith(beginning)), None)
    return kind or f"is no image of a known format; it begins with {head[:12]!r}"


def why_missing(root: Path, path: str) -> str:
    """Return why there is no file at a path of a row, and which file may be meant.

    Args:
        root: the media folder.
        path: relative to it.
    """
    there = root / path
    if not root.is_dir():
        return f"does not exist: media_root {root} is no folder"
    if there.is_dir():
        return "is a folder; name a file"
    if there.is_symlink():
        return "is a link to a file that does not exist"
    if path.lstrip().startswith("["):
        return "is a list written as a text; write it as a list"
    if WINDOWS_PATH.match(path):
        return f"is a path of Windows; write it relative to media_root, {root}, with /"
    for meant in dict.fromkeys([path.replace("\\", "/"), unquote(path), path.strip()]):
        if meant != path and (root / meant).is_file():
            return f"does not exist under {root}; {meant!r} does"
    if "\\" in path:
        return f"does not exist under {root}; write / for \\"
    if (file := in_other_case(root, path)) is not None:
        return f"does not exist under {root}; {file!r} does, in other letters"
    return f"does not exist under {root}"


def in_other_case(root: Path, path: str) -> str | None:
    """Return the path of a file that differs in upper and lower case or in the composition of accents only."""
    folder = root
    parts: list[str] = []
    for part in Path(path).parts:
        name = _names(folder).get(_folded(part))
        if name is None:
            return None
        folder, parts = folder / name, [*parts, name]
    return "/".join(parts) if parts and folder.is_file() else None


@lru_cache(maxsize=16)  # the images of a data set are in few folders
def _names(folder: Path) -> dict[str, str]:
    """Return the names in a folder by their folded spelling; none of a folder that cannot be read."""
    try:
        return {_folded(entry.name): entry.name for entry in folder.iterdir()}
    except OSError:
        return {}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
