"""Rows of a data set as VLMEvalKit reads them, the prompts it builds of them, their images as they lie in the file."""

import base64
import hashlib
import math
import os
import string
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"), (b"BM", ".bmp"), (b"II*\0", ".tiff"),
            (b"MM\0*", ".tiff"))  # fmt: skip


class Unusable(ValueError):
    """The data set cannot be measured; the text says why."""


@dataclass
class Table:
    """An open data set: VLMEvalKit's object and the file it was read from; it leaves rows without an image out."""

    name: str
    dataset: Any
    file: Path
    custom: bool
    rows_in_file: int

    @property
    def frame(self) -> Any:
        return self.dataset.data


def open_table(name: str, file: Path, images: Path) -> Table:
    """Read a TSV file with the class that VLMEvalKit has for this name, or with its class for files of one's own.

    Raises:
        Unusable: it has no class that could, or the file lacks what that class needs.
    """
    import vlmeval.dataset as package
    from vlmeval.dataset.image_base import ImageBaseDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = package.image_base.load(str(file))
        _check(frame, name, file)
        official = next((cls for cls in package.DATASET_CLASSES if name in cls.supported_datasets()), None)
        if official is None:
            options = {"A", "B"} <= set(frame.columns)
            cls = package.CustomMCQDataset if options else package.CustomVQADataset
        else:
            cls = official
        if not issubclass(cls, ImageBaseDataset):
            raise Unusable(f"{name} is {cls.__name__}, which does not ask about still images.")
        # never by name or address: the file that was named is the file that is read
        own: Any = type(
            cls.__name__, (cls,), {"prepare_tsv": lambda self, url, md5=None: frame, "__module__": __name__}
        )
        if official is None:
            own.load_data = lambda self, dataset: frame
        try:
            dataset = own(dataset=name)
        except (KeyError, AssertionError, ValueError, TypeError) as error:
            raise Unusable(f"VLMEvalKit cannot read {file} as {name}: {type(error).__name__}: {error}") from None
    images.mkdir(parents=True, exist_ok=True)
    dataset.img_root = str(file.parent)
    dataset.dump_image = lambda line: _images(line, images, file)
    return Table(name, dataset, file, official is None, len(frame))


def _check(frame: Any, name: str, file: Path) -> None:
    missing = [column for column in ("index", "question") if column not in frame.columns]
    if missing:
        raise Unusable(f"{file} has no column {' and no column '.join(missing)}; it has {', '.join(frame.columns)}.")
    if not len(frame):
        raise Unusable(f"{file} has no rows.")
    if not {"image", "image_path"} & set(frame.columns):
        raise Unusable(f"{file} has neither a column image nor a column image_path.")
    if "answer" not in frame.columns:
        raise Unusable(f"{file} has no column answer: {name} cannot be scored here.")
    if frame["index"].astype(str).duplicated().any():
        double = frame["index"][frame["index"].astype(str).duplicated()].iloc[0]
        raise Unusable(f"{file} has the index {double} more than once; answers are kept by index.")


def rows(table: Table, groups: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every row: id, parts of the prompt in VLMEvalKit's order, question, gold, options, and its values of `groups`.

    Afterwards the images are let go; they lie in files.
    """
    for place in range(len(table.frame)):
        line = table.frame.iloc[place]
        if (answer := _text(line["answer"])) is None:
            raise Unusable(f"Row {line['index']} of {table.file} has no answer; nothing can be scored against it.")
        try:
            message = table.dataset.build_prompt(line)
        except Unusable as error:
            raise Unusable(f"Row {line['index']} of {table.file}: {error}") from None
        except (KeyError, AssertionError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise Unusable(
                f"VLMEvalKit cannot build the prompt of row {line['index']} of {table.file}: "
                f"{type(error).__name__}: {error}"
            ) from None
        yield {
            "id": str(line["index"]),
            "parts": [_part(part, table.file) for part in message],
            "question": str(line["question"]),
            "answer": answer,
            "options": {key: _text(line[key]) for key in string.ascii_uppercase if _text(line.get(key)) is not None},
            "fields": {key: _text(line[key]) for key in groups if key in line},
        }
    table.dataset.data = table.frame.drop(columns=[key for key in ("image",) if key in table.frame.columns])


def _part(part: dict[str, str], file: Path) -> dict[str, str]:
    if part["type"] == "text":
        return {"text": part["value"]}
    if part["type"] != "image":
        raise Unusable(f"it has a part of type {part['type']}; only text and images can be asked here")
    path = Path(part["value"])
    found = path if path.is_absolute() else file.parent / path
    if not found.is_file():
        raise Unusable(f"its image {path} is not there (looked in {file.parent})")
    return {"image": str(found)}


def _text(cell: Any) -> str | None:
    """A cell as text; None for an empty one."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return str(cell)


def _images(line: Any, folder: Path, file: Path) -> list[str]:
    """Files of a row's images. Bytes are those of the file; names are their hashes, so that nothing can be stale."""
    if "image" not in line:
        paths = line["image_path"]
        paths = paths if isinstance(paths, list) else [paths]
        return [str(path if os.path.isabs(path) else file.parent / "images" / path) for path in paths]
    cells = line["image"] if isinstance(line["image"], list) else [line["image"]]
    return [str(_image(cell, folder)) for cell in cells]


def _image(cell: str, folder: Path) -> Path:
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
