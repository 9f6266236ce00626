"""Write the rows that passed a check as a new data set in the documented row format."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.images import image_source
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.rows import Row
from rlfr_vlm.data.stored_media import line_of, stored_media, without_embedded
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from rlfr_vlm.data.check import DataReport


def write_clean(options: DataOptions, report: "DataReport", folder: Path) -> tuple[Path, dict[str, str]]:
    """Write `clean.jsonl`, or `clean.parquet` if images are embedded and there are no videos.

    Returns:
        The file, and the options that load it: `dataset_name`, and `media_root` if images or videos are files.
    """
    rows = read_rows(options)
    folder.mkdir(parents=True, exist_ok=True)
    root = rows.media_folder
    images_are_files = True
    columns: dict[str, None] = {}
    for row in _kept_rows(rows, report):
        images_are_files &= all(isinstance(image, str) for image in row["images"])
        columns |= dict.fromkeys(row)
    if images_are_files or "videos" in columns:
        path = folder / "clean.jsonl"
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as stream:
            for row in _kept_rows(rows, report):
                row["prompt"] = without_embedded(row["prompt"])
                rules = rows.rules_of(row)
                as_it_is = images_are_files and "videos" not in row and (rules.media_root or root).resolve() == root
                stream.write(line_of(row if as_it_is else row | stored_media(row, rules, root)))
    else:
        import datasets

        path = folder / "clean.parquet"
        temporary = path.with_name(f".{path.name}")
        dataset = datasets.Dataset.from_generator(
            # Parquet has the columns of the first row; converted rows lack those that are null.
            lambda: (dict.fromkeys(columns) | _embed_images(row, rows) for row in _kept_rows(rows, report))
        )
        dataset.to_parquet(str(temporary))
    os.replace(temporary, path)
    settings = {"dataset_name": str(path)}
    if path.suffix == ".jsonl" and (report.images or "videos" in columns):
        settings["media_root"] = str(root)
    return path, settings


def _kept_rows(rows: Rows, report: "DataReport") -> Iterator[Row]:
    return (rows.converted(number) for number in report.kept)


def _embed_images(row: Row, rows: Rows) -> Row:
    """Return the row with the bytes of its images."""
    sources = (image_source(image, rows.rules_of(row)) for image in row["images"])
    images = [{"bytes": s.read_bytes() if isinstance(s, Path) else s, "path": None} for s in sources]
    return {**row, "images": images}
