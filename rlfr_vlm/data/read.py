"""Read a data set by name: a file, a folder, or a hub id. Rows come out as they are; see rows.py for what follows.

JSON is kept as text and parsed row by row, so that one broken line, or a column of two types, costs one row.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.errors import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset

FILE_FORMATS = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".arrow")
TEXT_COLUMN = "__json__"


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
            return stored
        try:
            return json.loads(stored[TEXT_COLUMN])
        except ValueError as error:
            raise BadRow("json", f"its line is not JSON: {error}") from None


def read_dataset(name: str, split: str = "train", revision: str | None = None) -> RawDataset:
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
        return RawDataset(keep_encoded(_load(name, split=split, revision=revision)), None)
    except UserError:
        raise
    except Exception as error:  # datasets raises many types for "cannot be had"; its text says which
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Cannot load dataset {name!r} (split {split!r}): {reason} Give an existing file or folder, a hub id that "
            "this machine can reach, or `digits`."
        ) from None


def _load(*arguments: Any, **settings: Any) -> "Dataset":
    import datasets

    return datasets.load_dataset(*arguments, **settings)


def _read_file(path: Path, split: str) -> "Dataset":
    import datasets

    if path.suffix not in FILE_FORMATS:
        raise UserError(f"Cannot read {path}: {path.suffix or 'no'} suffix; known are {', '.join(FILE_FORMATS)}.")
    if split != "train":
        raise UserError(f"{path} is one file and has no split {split!r}. Leave dataset_split at train.")
    if path.suffix == ".arrow":
        return keep_encoded(datasets.Dataset.from_file(str(path)))
    if path.suffix == ".parquet":
        return keep_encoded(_load("parquet", data_files=str(path), split="train"))
    if path.suffix in (".csv", ".tsv"):
        separator = "\t" if path.suffix == ".tsv" else ","
        return _load("csv", data_files=str(path), split="train", sep=separator)
    return _read_json([path])


def _read_json(paths: list[Path]) -> "Dataset":
    """Lines of JSONL, or the elements of a JSON list, as texts in a memory-mapped table."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, path in enumerate(paths):
            with path.open(encoding="utf-8") as stream:
                first = stream.read(1024).lstrip()[:1]
            if first == "[":
                lines = Path(folder) / f"{number}.jsonl"
                rows = json.loads(path.read_text(encoding="utf-8"))
                lines.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
                path = lines
            files.append(str(path))
        dataset = _load("text", data_files=files, split="train", keep_linebreaks=False)
    dataset = dataset.rename_column("text", TEXT_COLUMN)
    blank = [number for number, text in enumerate(dataset[TEXT_COLUMN]) if not text.strip()]
    return dataset.select(sorted(set(range(len(dataset))) - set(blank))) if blank else dataset


def _read_folder(path: Path, split: str) -> "Dataset":
    import datasets

    if any((path / file).exists() for file in ("state.json", "dataset_dict.json")):
        return keep_encoded(_split_of(datasets.load_from_disk(str(path)), str(path), split))
    lines = sorted([*path.glob("*.jsonl"), *path.glob("*.json")])
    named = [file for file in lines if split in file.stem]
    if lines and not any(path.glob("*.parquet")):
        if not named and split != "train":
            raise UserError(f"{path} has no file for split {split!r}; it has {', '.join(f.name for f in lines)}.")
        return _read_json(named or lines)
    arrows = sorted(path.glob("*.arrow"))
    if arrows and split == "train":
        return keep_encoded(datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in arrows]))
    return keep_encoded(_load(str(path), split=split))


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
