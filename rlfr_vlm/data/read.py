"""Read a data set by name: a file, a folder, or a hub id. Rows come out as they are; see rows.py for what follows.

JSON is kept as text and parsed row by row, so that one broken line, or a column of two types, costs one row.
"""

import csv
import glob
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.errors import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
FILE_FORMATS = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".arrow")
TEXT_COLUMN = "__json__"
METADATA = ("dataset_info.json", "dataset_infos.json", "state.json", "config.json")
SPLIT_NAMES = {"train", "test", "testmini", "validation", "valid", "val", "dev", "eval"}
LIST_CELLS = ("images", "options", "choices", "answer")  # of a CSV file, may hold a JSON list


@dataclass
class RawDataset:
    """Rows as stored, and the folder that relative image paths start from."""

    dataset: "Dataset"
    media_root: Path | None

    def row(self, stored: dict[str, Any]) -> Row:
        """One stored row as a raw row.

        Raises:
            BadRow: a line that is not JSON.
        """
        if TEXT_COLUMN not in stored:
            return {name: _cell(name, value) for name, value in stored.items()}
        try:
            return json.loads(stored[TEXT_COLUMN])
        except (ValueError, RecursionError) as error:
            raise BadRow("json", f"its line is not JSON: {error}") from None


def read_dataset(
    name: str, split: str = "train", revision: str | None = None, config: str | None = None
) -> RawDataset:
    """Read `name`.

    Raises:
        UserError: no such data set or split, or it cannot be read.
    """
    path = Path(name).expanduser()
    try:
        if path.is_file():
            return RawDataset(_read_file(path, split), path.parent)
        if path.is_dir():
            return RawDataset(_read_folder(path, split), path)
        if path.suffix in FILE_FORMATS or name.startswith((".", "/", "~")):
            raise UserError(f"No dataset at {name}. Give an existing file or folder, a hub id, or `digits`.")
        if revision is None:
            logger.warning("%s is not pinned: its owner may change it. Set dataset_revision to a commit.", name)
        return RawDataset(keep_encoded(_load(name, config, split=split, revision=revision)), None)
    except UserError:
        raise
    except Exception as error:  # datasets raises many types for "cannot be had"; its text, or its cause's, says which
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or [type(cause).__name__])[0]
        raise UserError(
            f"Cannot load dataset {name!r} (split {split!r}): {reason} Give an existing file or folder, a hub id that "
            "this machine can reach, or `digits`."
        ) from None


def _cell(name: str, value: Any) -> Any:
    """A cell of a CSV file: nothing when empty, a list when it holds one."""
    if value == "":
        return None
    if name in LIST_CELLS and isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _load(*arguments: Any, **settings: Any) -> "Dataset":
    import datasets

    return datasets.load_dataset(*arguments, **settings)


def _read_file(path: Path, split: str) -> "Dataset":
    import datasets

    if path.suffix not in FILE_FORMATS:
        raise UserError(f"Cannot read {path}: {path.suffix or 'no'} suffix; known are {', '.join(FILE_FORMATS)}.")
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
    """CSV as text: guessed types would turn 007 into 7.0, long integers into floats, the answer "None" to nothing."""
    import datasets

    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = next(csv.reader(stream, delimiter=separator))
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return _load("csv", data_files=glob.escape(str(path)), split="train", sep=separator, features=features,
                 keep_default_na=False, encoding="utf-8-sig")  # fmt: skip


def _read_json(paths: list[Path]) -> "Dataset":
    """Lines of JSONL as texts in a memory-mapped table; the elements of JSON lists as texts in memory."""
    import datasets

    parts = []
    for path in paths:
        with path.open(encoding="utf-8-sig", errors="replace") as stream:
            first = stream.readline().strip()
        if first.startswith("["):
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
            parts.append(datasets.Dataset.from_dict({TEXT_COLUMN: [json.dumps(row) for row in rows]}))
        elif first == "{":
            raise UserError(f"{path} is one JSON object over many lines. Write a list of rows, or one row a line.")
        else:
            # Another byte order mark or a broken byte costs at most its own row.
            lines = _load("text", data_files=glob.escape(str(path)), split="train", encoding="utf-8-sig",
                          encoding_errors="replace")  # fmt: skip
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
    files = sorted(file for file in [*path.glob("*.jsonl"), *path.glob("*.json")] if file.name not in METADATA)
    if not files:
        return keep_encoded(_load(str(path), split=split))
    named = [file for file in files if split in re.split(r"[^a-z]+", file.stem.lower())]
    others = [file for file in files if not set(re.split(r"[^a-z]+", file.stem.lower())) & SPLIT_NAMES]
    if not named and (split != "train" or not others):
        raise UserError(f"{path} has no file for split {split!r}; it has {', '.join(f.name for f in files)}.")
    return _read_json(named or others)


def _split_of(saved: Any, name: str, split: str) -> "Dataset":
    """The split of a saved dataset, which may hold several or just one without a name."""
    splits = saved.keys() if hasattr(saved, "keys") else ["train"]
    if split not in splits:
        raise UserError(f"{name} has no split {split!r}; it has {', '.join(splits)}.{nearest(split, splits)}")
    return saved[split] if hasattr(saved, "keys") else saved


def keep_encoded(dataset: "Dataset") -> "Dataset":
    """Images stored inside a dataset stay encoded until a row is read."""
    import datasets

    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.List(datasets.Image(decode=False)))
        elif isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset
