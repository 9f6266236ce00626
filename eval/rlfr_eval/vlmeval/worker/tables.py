"""Rows of a data set as VLMEvalKit reads them, the prompts it builds of them, their images as they lie in the file."""

import math
import string
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlfr_eval.vlmeval.worker.image_files import Unusable, picture_files, verify

REASONS = {  # what VLMEvalKit says nothing about
    "AssertionError": "a cell image of at most 64 characters is the index of the row that has the image",
}


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
        official = next((cls for cls in package.DATASET_CLASSES if name in cls.supported_datasets()), None)
        frame = _read(file, own=official is None)
        _check(frame, name, file)
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
            why = str(error) or REASONS.get(type(error).__name__, "it does not say why")
            raise Unusable(f"VLMEvalKit cannot read {file} as {name}: {type(error).__name__}: {why}") from None
    images.mkdir(parents=True, exist_ok=True)
    dataset.img_root = str(file.parent)
    dataset.dump_image = lambda line: picture_files(line, images, file)
    if not len(dataset.data):
        raise Unusable(f"{file} has no row with an image.")
    return Table(name, dataset, file, official is None, len(frame))


def _read(file: Path, own: bool) -> Any:
    """The rows as VLMEvalKit reads them; of a file of one's own, cells as they stand: `007`, `None`, twenty digits.

    Raises:
        Unusable: they are no table.
    """
    import pandas
    from vlmeval.dataset.image_base import load

    try:
        frame = (
            pandas.read_csv(file, sep="\t", dtype=str, keep_default_na=False, na_values=[""])
            if own
            else load(str(file))
        )
    except (ValueError, UnicodeError) as error:  # empty, ragged, another encoding
        raise Unusable(f"{file} is no table of tab-separated UTF-8 text: {str(error).strip()}") from None
    if not own:
        return frame
    for column in frame.columns:
        torn = frame[column].str.contains("\t", regex=False).fillna(False)
        if torn.any():
            raise Unusable(
                f"{file}, column {column}: the cell that begins {frame[column][torn].iloc[0][:40]!r} holds a tab. "
                "What begins with a quotation mark goes on to the next; double those of the text, and quote the cell."
            )
    return frame


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
    if frame["index"].isna().any():
        raise Unusable(f"{file} has a row without an index; answers are kept by index.")
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
            parts = [_part(part, table.file) for part in table.dataset.build_prompt(line)]
        except Unusable as error:
            raise Unusable(f"Row {line['index']} of {table.file}: {error}") from None
        except (KeyError, AssertionError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise Unusable(
                f"VLMEvalKit cannot build the prompt of row {line['index']} of {table.file}: "
                f"{type(error).__name__}: {error}"
            ) from None
        options = {key: _text(line[key]) for key in string.ascii_uppercase if _text(line.get(key)) is not None}
        if table.custom and "B" in line and answer not in options:
            raise Unusable(
                f"Row {line['index']} of {table.file}: its answer is {answer!r}, and its options are "
                f"{', '.join(options) or 'empty'}. The answer to a question with options is one of their letters."
            )
        yield {
            "id": str(line["index"]),
            "parts": parts,
            "question": _question(line, "".join(part.get("text", "") for part in parts)),
            "answer": answer,
            "options": options,
            "fields": {key: _text(line[key]) for key in groups if key in line},
        }
    table.dataset.data = table.frame.drop(columns=[key for key in ("image",) if key in table.frame.columns])


def _question(line: Any, prompt: str) -> str:
    """The question, after the hint that VLMEvalKit puts before it."""
    question, hint = str(line["question"]), _text(line.get("hint"))
    return f"Hint: {hint}\n{question}" if hint and f"Hint: {hint}" in prompt.replace(question, "") else question


def _part(part: dict[str, str], file: Path) -> dict[str, str]:
    if part["type"] == "text":
        return {"text": part["value"]}
    if part["type"] != "image":
        raise Unusable(f"it has a part of type {part['type']}; only text and images can be asked here")
    path = Path(part["value"])
    found = path if path.is_absolute() else file.parent / path
    if not found.is_file():
        raise Unusable(f"its image {path} is not there (looked in {file.parent})")
    verify(found)
    return {"image": str(found)}


def _text(cell: Any) -> str | None:
    """A cell as text; None for an empty one."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return str(cell)
