"""Read a data set from a file, a folder or the hub. Rows are returned as stored; rows.py converts them.

JSON is stored as text and parsed row by row, so that a broken line or a value of another type affects only its row.
"""

import csv
import glob
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.options import EMBEDDED_TASKS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)
FILE_FORMATS = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".arrow")
BUILT_IN = f"a built-in task ({', '.join(EMBEDDED_TASKS)})"
TEXT_COLUMN = "__json__"
TWICE = "__twice__"  # key of an object of a JSON list that has another key twice
URL = re.compile(r"[A-Za-z][\w+.-]*://")
METADATA = ("dataset_info.json", "dataset_infos.json", "state.json", "config.json")
SUMMARY_SUFFIX = ".summary.json"  # of a file beside the rows of `rlfr sample`
SPLIT_NAMES = {"train", "test", "testmini", "validation", "valid", "val", "dev", "eval"}
LIST_COLUMNS = ("images", "videos", "options", "choices", "answer")  # whose CSV cells may contain a JSON list


@dataclass
class RawDataset:
    """Rows as stored, and the folder that image paths are relative to."""

    dataset: "Dataset"
    media_root: Path | None

    def row(self, stored: Row) -> Row:
        """Return the raw columns of a stored row.

        Raises:
            BadRow: the row is a line that is not JSON, or an object in it has a key twice.
        """
        if TEXT_COLUMN not in stored:
            return {name: _cell(name, value) for name, value in stored.items()}
        try:
            return json.loads(stored[TEXT_COLUMN], object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise BadRow("json", f"the line is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON. Python's own reader keeps the last of several values of one key."""
    columns = _marked(pairs)
    if TWICE in columns:
        raise BadRow("json", f"the key {columns[TWICE]!r} occurs twice, with two values")
    return columns


def _marked(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object of JSON; a key that occurs twice is named under `TWICE`."""
    columns = dict(pairs)
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None) if len(columns) < len(names) else None
    return columns if twice is None else {**columns, TWICE: twice}


def read_dataset(
    name: str, split: str = "train", revision: str | None = None, config: str | None = None
) -> RawDataset:
    """Read a data set.

    Args:
        name: a file, a folder or a hub id.
        split: split of the data set.
        revision: revision of a hub data set.
        config: configuration of a hub data set that has several.

    Raises:
        UserError: the data set or split does not exist or cannot be read.
    """
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return RawDataset(_read_file(path, split), path.parent)
        if path.is_dir():
            return RawDataset(_read_folder(path, split), path)
        if URL.match(name):
            raise UserError(f"The dataset {name} is a URL. Download it, and give the file or folder.")
        if "\\" in name:
            raise UserError(f"No dataset at {name}. Write the path with / instead of \\.")
        if path.suffix in FILE_FORMATS or name.startswith((".", "/", "~")):
            beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(
                f"No dataset at {name}.{nearest(path.name, beside)} Give an existing file or folder, a hub id, or "
                f"{BUILT_IN}."
            )
        if revision is None:
            logger.warning("%s is not pinned and may change. Set dataset_revision to a commit.", name)
        return RawDataset(keep_encoded(_load(name, config, split=split, revision=revision)), None)
    except UserError:
        raise
    except Exception as error:  # datasets raises many types; the reason is in the message or in the cause
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise UserError(
            f"Cannot load dataset {name!r} (split {split!r}): {reason} Give an existing file or folder, a hub id that "
            f"this machine can reach, or {BUILT_IN}.{nearest(name, EMBEDDED_TASKS)}"
        ) from None


def _cell(name: str, value: object) -> object:
    """Convert a CSV cell: None if it is empty, a list if it contains a JSON list."""
    if value == "":
        return None
    if name in LIST_COLUMNS and isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _load(*args: str | None, **kwargs: object) -> "Dataset":
    import datasets

    return datasets.load_dataset(*args, **kwargs)


def _read_file(path: Path, split: str) -> "Dataset":
    import datasets

    if path.suffix not in FILE_FORMATS:
        raise UserError(f"Cannot read {path}: {path.suffix or 'no'} suffix; supported are {', '.join(FILE_FORMATS)}.")
    if split != "train":
        raise UserError(f"{path} is one file and has no split {split!r}. Leave dataset_split at train.")
    if path.stat().st_size == 0:
        raise UserError(f"Dataset {path} has no rows: the file is empty.")
    if path.suffix == ".arrow":
        return keep_encoded(datasets.Dataset.from_file(str(path)))
    name = glob.escape(str(path))
    if path.suffix == ".parquet":
        return keep_encoded(_load("parquet", data_files=name, split="train"))
    if path.suffix in (".csv", ".tsv"):
        return _read_table(path, "\t" if path.suffix == ".tsv" else ",")
    return _read_json([path])


def _read_table(path: Path, separator: str) -> "Dataset":
    """Read CSV cells as text: type inference turns 007 into 7.0, long integers into floats and "None" into null."""
    import datasets

    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter=separator)
        header, first = next(lines), next(lines, [])
    if twice := next((name for name in header if name and header.count(name) > 1), None):
        raise UserError(f"{path} has the column {twice!r} twice. Rename or remove one of them.")
    if len(first) > len(header):  # pandas would take the first cells as names of the rows
        raise UserError(f"{path} has {len(header)} columns in its head, and {len(first)} in its first row.")
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return _load(
        "csv",
        data_files=glob.escape(str(path)),
        split="train",
        sep=separator,
        features=features,
        keep_default_na=False,
        encoding="utf-8-sig",
    )


def _read_json(paths: list[Path]) -> "Dataset":
    """Read rows as JSON texts: lines of JSONL as a memory-mapped table, elements of JSON lists in memory."""
    import datasets

    parts = []
    for path in paths:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            first = stream.readline().strip()
        if first.startswith("["):
            rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_marked)
            parts.append(datasets.Dataset.from_dict({TEXT_COLUMN: [json.dumps(row) for row in rows]}))
        elif first == "{":
            raise UserError(f"{path} is one JSON object over many lines. Write a list of rows, or one row per line.")
        else:
            # A second byte order mark or an invalid byte affects at most its own row.
            lines = _load(
                "text",
                data_files=glob.escape(str(path)),
                split="train",
                encoding="utf-8-sig",
                encoding_errors="replace",
            )
            parts.append(lines.rename_column("text", TEXT_COLUMN))
    dataset = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    blank = {number for number, text in enumerate(dataset[TEXT_COLUMN]) if not text.strip()}
    return dataset.select([n for n in range(len(dataset)) if n not in blank]) if blank else dataset


def _read_folder(path: Path, split: str) -> "Dataset":
    import datasets

    if any((path / file).exists() for file in ("state.json", "dataset_dict.json")):
        return keep_encoded(_split_of(datasets.load_from_disk(str(path)), str(path), split))
    if any(path.rglob("*.parquet")):
        return keep_encoded(_load(str(path), split=split))
    arrows = sorted(path.glob("*.arrow"))
    if arrows and split == "train":
        return keep_encoded(datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in arrows]))
    found = [*path.glob("*.jsonl"), *path.glob("*.json")]
    files = sorted(file for file in found if file.name not in METADATA and not file.name.endswith(SUMMARY_SUFFIX))
    if not files:
        return keep_encoded(_load(str(path), split=split))
    in_split = [file for file in files if split in re.split(r"[^a-z]+", file.stem.lower())]
    without_split = [file for file in files if not set(re.split(r"[^a-z]+", file.stem.lower())) & SPLIT_NAMES]
    if not in_split and (split != "train" or not without_split):
        raise UserError(f"{path} has no file for split {split!r}; it has {', '.join(f.name for f in files)}.")
    return _read_json(in_split or without_split)


def _split_of(saved: "Dataset | DatasetDict", name: str, split: str) -> "Dataset":
    """Return a split of a saved dataset. A dataset without splits counts as the split train."""
    splits = saved.keys() if hasattr(saved, "keys") else ["train"]
    if split not in splits:
        raise UserError(f"{name} has no split {split!r}; it has {', '.join(splits)}.{nearest(split, splits)}")
    return saved[split] if hasattr(saved, "keys") else saved


def keep_encoded(dataset: "Dataset") -> "Dataset":
    """Keep images and videos that are stored in a dataset encoded until a row is read."""
    import datasets

    kinds = (datasets.Image, datasets.Video)
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.List) and isinstance(feature.feature, kinds):
            dataset = dataset.cast_column(name, datasets.List(type(feature.feature)(decode=False)))
        elif isinstance(feature, kinds):
            dataset = dataset.cast_column(name, type(feature)(decode=False))
    return dataset
