"""Read VLMEvalKit's prediction files: a table with the columns of its data and `prediction`, as xlsx, tsv or json.

Read in open-compass/VLMEvalKit e8e78f0 (`vlmeval/inference.py`, `vlmeval/smp/file.py`) and in ms-vlmeval 0.0.20: the
file is MODEL_DATASET.xlsx, or of another format with PRED_FORMAT; the column `image` is taken out; where a request
failed, the prediction begins with `Failed to obtain answer`.
"""

import csv
import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlfr_eval.importing.entries import VLMEVAL, AnswerFile, Entry
from rlfr_vlm.errors import UserError

NEEDED = ("index", "prediction")
FAILED = "Failed to obtain answer"  # how VLMEvalKit's message begins where a request failed
LONGEST_CELL = 32_767  # characters of a cell of xlsx
ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")  # ST_Xstring of ECMA-376; openpyxl leaves it as it is
RUN_FOLDER = re.compile(r"T\d+_G(?P<commit>[0-9a-f]+)")  # VLMEvalKit's folder of one run
Row = dict[str, str]


def is_workbook(content: bytes) -> bool:
    """Return whether a file is a zip archive, as xlsx is."""
    return content.startswith(b"PK\x03\x04")


def is_table(content: bytes) -> bool:
    """Return whether a file is text whose first line names the columns of a prediction file."""
    names = (
        content.split(b"\n", 1)[0].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").rstrip("\r").split("\t")
    )
    return set(NEEDED) <= {name.strip('"') for name in names}


def read_predictions(path: Path, content: bytes, sha256: str, datasets: Sequence[str]) -> AnswerFile:
    """Read a prediction file.

    Args:
        datasets: names by one of which the file's name may end.

    Raises:
        UserError: it is no table with the columns of a prediction file, or xlsx cannot be read here.
    """
    workbook = is_workbook(content)
    if workbook:
        rows = _workbook_rows(path)
    elif content.lstrip()[:1] == b"[":
        rows = _json_rows(path, content)
    else:
        rows = _tsv_rows(path, content)
    entries = tuple(_entry(where, row, workbook) for where, row in rows)
    if not entries:
        raise UserError(f"{path} has column names and no rows; there are no answers to import.")
    empty = sum(not entry.answers[0].strip() for entry in entries if entry.answers)
    note = (
        f"{empty} cells are empty; an xlsx file also has an empty cell where an answer was longer than "
        f"{LONGEST_CELL:,} characters, which a tsv file keeps"
    )
    dataset = max((name for name in datasets if path.stem.endswith(f"_{name}")), key=len, default="")
    return AnswerFile(
        path,
        VLMEVAL,
        sha256,
        entries,
        task=dataset,
        model=path.stem.removesuffix(f"_{dataset}") if dataset else "",
        version=_commit(path),
        notes=(note,) if workbook and empty else (),
    )


def _entry(where: str, row: Row, workbook: bool) -> Entry:
    prediction = row["prediction"]
    failure = ""
    if prediction.strip().startswith(FAILED):
        failure = "the request failed in VLMEvalKit"
    elif workbook and len(prediction) >= LONGEST_CELL:
        failure = f"the answer is cut off at the {LONGEST_CELL:,} characters of a cell"
    return Entry(
        where,
        () if failure else (prediction,),
        index=row["index"],
        texts=(row["question"],) if row.get("question") else (),
        target=row.get("answer", ""),
        failure=failure,
    )


def _commit(path: Path) -> str:
    """Return VLMEvalKit's commit by the status.json beside a file, or by the name of its folder; "" without either."""
    folder = path.resolve().parent  # VLMEvalKit links the newest files into the folder above
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        status = None
    if isinstance(status, dict) and isinstance(status.get("commit"), str):
        return str(status["commit"])
    named = RUN_FOLDER.fullmatch(folder.name)
    return named["commit"] if named else ""


def _checked(path: Path, columns: Sequence[str]) -> list[str]:
    """Return the column names.

    Raises:
        UserError: a column that is needed is missing.
    """
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column {' and no column '.join(missing)}: it is no prediction file of VLMEvalKit. It has "
            f"{', '.join(columns) or 'none'}."
        )
    return list(columns)


def _tsv_rows(path: Path, content: bytes) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a table of tab-separated text, each with its place."""
    limit = csv.field_size_limit(sys.maxsize)  # a response may be longer than csv's default
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter="\t")
        columns = _checked(path, next(reader, []))
        for number, cells in enumerate(reader, 1):
            if len(cells) != len(columns):
                raise UserError(
                    f"{path}, row {number}, has {len(cells)} cells; its columns are {len(columns)}. It is no table of "
                    "tab-separated text."
                )
            yield f"row {number}", dict(zip(columns, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no table of tab-separated UTF-8 text: {error}.") from None
    finally:
        csv.field_size_limit(limit)


def _json_rows(path: Path, content: bytes) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a JSON list of objects, each with its place."""
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
    for number, row in enumerate(rows, 1):
        _checked(path, list(row) if isinstance(row, dict) else [])
        yield f"row {number}", {name: _cell(value) for name, value in row.items()}


def _workbook_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Yield the rows of the first sheet of an xlsx file, each with its place. Formulas stay text."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(
            f"{path} is an Excel file, and openpyxl is not installed. Run `pip install 'rlfr-vlm[xlsx]'`, or let "
            "VLMEvalKit write tsv (PRED_FORMAT=tsv)."
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=False)
        rows = book.worksheets[0].iter_rows(values_only=True)
        columns = _checked(path, [_workbook_cell(value) for value in next(rows, ())])
        for number, values in enumerate(rows, 1):
            cells = [_workbook_cell(value) for value in values]
            if any(cells):
                yield f"row {number}", dict(zip(columns, [*cells, *[""] * len(columns)], strict=False))
        book.close()
    except (
        ValueError,
        KeyError,
        IndexError,
        OSError,
        EOFError,
        SyntaxError,
        zipfile.BadZipFile,
        openpyxl.utils.exceptions.InvalidFileException,
    ) as error:
        raise UserError(f"{path} is no xlsx file that can be read: {error}.") from None


def _workbook_cell(value: object) -> str:
    r"""Return a cell of a workbook as text. Carriage returns and other control characters are escaped in xlsx.

    >>> _workbook_cell("a_x000D_\nb"), _workbook_cell(7)
    ('a\r\nb', '7')
    """
    text = getattr(value, "text", value)  # of a formula in braces, which openpyxl returns as an object
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), _cell(text))


def _cell(value: object) -> str:
    """Return a cell as text: a whole number without a point, an empty cell as "".

    >>> _cell(3.0), _cell(0.5), _cell(None), _cell("3.0")
    ('3', '0.5', '', '3.0')
    """
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
