"""Write the rows that passed a check as a new data set."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.rows import Row
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from rlfr_vlm.data.check import DataReport


def write_clean(options: DataOptions, report: "DataReport", folder: Path) -> Path:
    """Documented rows as `clean.jsonl`, or as `clean.parquet` where images are embedded; image paths stay relative.

    Relative image paths start from the original media folder, which `media_root` must then name.
    """
    rows = read_rows(options)
    folder.mkdir(parents=True, exist_ok=True)
    if any(not isinstance(image, str) for image in rows.convert(_first(rows, report))["images"]):
        return _replace(
            folder / "clean.parquet", lambda path: rows.raw.dataset.select(report.kept).to_parquet(str(path))
        )

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as stream:
            for number in report.kept:
                row = rows.convert(rows.raw.row(rows.raw.dataset[number]))
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    return _replace(folder / "clean.jsonl", write)


def _first(rows: Rows, report: "DataReport") -> Row:
    return rows.raw.row(rows.raw.dataset[report.kept[0]])


def _replace(path: Path, write: object) -> Path:
    temporary = path.with_name(f".{path.name}")
    write(temporary)  # type: ignore[operator]
    os.replace(temporary, path)
    return path
