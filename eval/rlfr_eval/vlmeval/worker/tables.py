"""Read a data set with VLMEvalKit's classes: its rows, the prompts that VLMEvalKit builds, and its images."""

import math
import string
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_eval.vlmeval.worker.image_files import Unusable, image_files, verify

if TYPE_CHECKING:
    import pandas
    from vlmeval.dataset.image_base import ImageBaseDataset

REASONS = {  # exceptions that VLMEvalKit raises without a message
    "AssertionError": "a cell image of at most 64 characters is the index of the row that has the image",
}


@dataclass
class Table:
    """An open data set.

    Attributes:
        dataset: VLMEvalKit's object, which drops rows without an image.
        file: the TSV file.
        custom: whether this is a user's data set, which VLMEvalKit does not know by name.
        rows_in_file: number of rows including those without an image.
    """

    name: str
    dataset: "ImageBaseDataset"
    file: Path
    custom: bool
    rows_in_file: int

    @property
    def frame(self) -> "pandas.DataFrame":
        return self.dataset.data


def open_table(name: str, file: Path, images: Path) -> Table:
    """Read a TSV file with VLMEvalKit's class for this name, or with its class for user files.

    Args:
        images: folder for embedded images.

    Raises:
        Unusable: the class cannot ask about still images, or the file lacks columns or rows.
    """
    import vlmeval.dataset as package
    from vlmeval.dataset.image_base import ImageBaseDataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        official = next((cls for cls in package.DATASET_CLASSES if name in cls.supported_datasets()), None)
        if official is not None and not issubclass(official, ImageBaseDataset):
            kind = f"{name} is {official.__name__}, which does not ask about still images"
            raise Unusable(f"{kind}; sets of videos are not run here.")
        frame = _read(file, custom=official is None)
        _check(frame, name, file)
        if official is None:
            has_options = {"A", "B"} <= set(frame.columns)
            cls = package.CustomMCQDataset if has_options else package.CustomVQADataset
        else:
            cls = official
        # VLMEvalKit must read this file, not one that it finds or downloads by name.
        namespace: dict[str, Any] = {"prepare_tsv": lambda self, url, md5=None: frame, "__module__": __name__}
        if official is None:
            namespace["load_data"] = lambda self, dataset: frame
        try:
            dataset = type(cls.__name__, (cls,), namespace)(dataset=name)
        except (KeyError, AssertionError, ValueError, TypeError) as error:
            reason = str(error) or REASONS.get(type(error).__name__, "it does not say why")
            raise Unusable(f"VLMEvalKit cannot read {file} as {name}: {type(error).__name__}: {reason}") from None
    images.mkdir(parents=True, exist_ok=True)
    dataset.img_root = str(file.parent)
    dataset.dump_image = lambda row: image_files(row, images, file)
    if not len(dataset.data):
        raise Unusable(f"{file} has no row with an image.")
    return Table(name, dataset, file, official is None, len(frame))


def _read(file: Path, custom: bool) -> "pandas.DataFrame":
    """Read the rows as VLMEvalKit does.

    Args:
        custom: read a user's file: cells stay text, so that `007`, `None` and long numbers are not converted.

    Raises:
        Unusable: the file is no table.
    """
    import pandas
    from vlmeval.dataset.image_base import load

    try:
        frame = (
            pandas.read_csv(file, sep="\t", dtype=str, keep_default_na=False, na_values=[""])
            if custom
            else load(str(file))
        )
    except (ValueError, UnicodeError) as error:  # empty, ragged, another encoding
        raise Unusable(f"{file} is no table of tab-separated UTF-8 text: {str(error).strip()}") from None
    if not custom:
        return frame
    for column in frame.columns:
        has_tab = frame[column].str.contains("\t", regex=False).fillna(False)
        if has_tab.any():
            raise Unusable(
                f"{file}, column {column}: the cell that begins {frame[column][has_tab].iloc[0][:40]!r} holds a tab. "
                "A cell that begins with a quotation mark ends at the next one; double the marks in the text, and "
                "quote the cell."
            )
    return frame


def _check(frame: "pandas.DataFrame", name: str, file: Path) -> None:
    """Raise Unusable if columns or rows are missing, or if row ids are missing or not unique."""
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
        duplicate = frame["index"][frame["index"].astype(str).duplicated()].iloc[0]
        raise Unusable(f"{file} has the index {duplicate} more than once; answers are kept by index.")


def rows(table: Table, groups: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield every row: id, parts of the prompt in VLMEvalKit's order, question, answer, options and fields.

    Afterwards the column `image` is dropped to free memory; the images have been written to files.

    Args:
        groups: columns whose values are returned in `fields`.
    """
    for position in range(len(table.frame)):
        row = table.frame.iloc[position]
        if (answer := _text(row["answer"])) is None:
            raise Unusable(f"Row {row['index']} of {table.file} has no answer; nothing can be scored against it.")
        try:
            parts = [_part(part, table.file) for part in table.dataset.build_prompt(row)]
        except Unusable as error:
            raise Unusable(f"Row {row['index']} of {table.file}: {error}") from None
        except (KeyError, AssertionError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise Unusable(
                f"VLMEvalKit cannot build the prompt of row {row['index']} of {table.file}: "
                f"{type(error).__name__}: {error}"
            ) from None
        options = {key: _text(row[key]) for key in string.ascii_uppercase if _text(row.get(key)) is not None}
        if table.custom and "B" in row and answer not in options:
            raise Unusable(
                f"Row {row['index']} of {table.file}: its answer is {answer!r}, and its options are "
                f"{', '.join(options) or 'empty'}. The answer to a question with options is one of their letters."
            )
        yield {
            "id": str(row["index"]),
            "parts": parts,
            "question": _question(row, "".join(part.get("text", "") for part in parts)),
            "answer": answer,
            "options": options,
            "fields": {key: _text(row[key]) for key in groups if key in row},
        }
    table.dataset.data = table.frame.drop(columns=[key for key in ("image",) if key in table.frame.columns])


def _question(row: "pandas.Series", prompt: str) -> str:
    """Return the question, preceded by its hint if VLMEvalKit's prompt contains the hint."""
    question, hint = str(row["question"]), _text(row.get("hint"))
    return f"Hint: {hint}\n{question}" if hint and f"Hint: {hint}" in prompt.replace(question, "") else question


def _part(part: dict[str, str], file: Path) -> dict[str, str]:
    """Convert a part of VLMEvalKit's prompt, with the image's path made absolute."""
    if part["type"] == "text":
        return {"text": part["value"]}
    if part["type"] != "image":
        raise Unusable(f"it has a part of type {part['type']}; only text and images can be asked here")
    path = Path(part["value"])
    absolute = path if path.is_absolute() else file.parent / path
    if not absolute.is_file():
        raise Unusable(f"its image {path} is not there (looked in {file.parent})")
    verify(absolute)
    return {"image": str(absolute)}


def _text(cell: object) -> str | None:
    """Return a cell as text; None if it is empty."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return str(cell)
