"""Load a training set by name: `digits`, a local file or folder, or a Hugging Face hub id.

A row has `prompt` (text or messages), `images` (optional list of paths, bytes or images) and `answer`; expert data
has `response` instead of, or beside, `answer`. Images are opened when the row is read, never all at once.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.digits import SPLITS, load_digits_task
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.errors import UserError, nearest

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

FILE_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}


def load_rows(
    name: str, *, split: str = "train", columns: Sequence[str] = (), limit: int | None = None, seed: int = 0,
    revision: str | None = None, system_prompt: str | None = None,
) -> "Dataset":  # fmt: skip
    """Load `name` and check it, ready for the trainers: prompts become messages, images open on access.

    Args:
        name: `digits`, a JSON/JSONL/Parquet/CSV file, a folder (saved dataset or data files), or a hub id.
        split: which split.
        columns: columns that must exist.
        limit: use the first `limit` rows; for `digits`, how many rows to make (4096 by default).
        seed: of the `digits` task.
        revision: of a hub dataset.
        system_prompt: put before every prompt that has none.

    Raises:
        UserError: no such dataset, split, column or image file.
    """
    if name == "digits" and split not in SPLITS:
        raise UserError(
            f"digits has no split {split!r}; it has {' and '.join(SPLITS)}. Set dataset_split to one of them."
        )
    if name == "digits":
        dataset, media_root = load_digits_task(split, limit or 4096, seed), None
    else:
        dataset, media_root = _read(name, split, revision)
        if limit is not None:
            dataset = dataset.select(range(min(limit, len(dataset))))
    if len(dataset) == 0:
        raise UserError(f"Dataset {name} (split {split}) has no rows.")
    for column in columns:
        if column not in dataset.column_names:
            raise UserError(
                f"Dataset {name} has no column {column!r}; it has {', '.join(dataset.column_names)}."
                f"{nearest(column, dataset.column_names)} Rename the column, or choose another dataset."
            )
    if "images" in dataset.column_names:
        dataset = _keep_encoded(dataset)
        _check_image_files(dataset, media_root)
    return dataset.with_transform(_row_transform(media_root, system_prompt))


def _read(name: str, split: str, revision: str | None) -> "tuple[Dataset, Path | None]":
    import datasets

    path = Path(name)
    try:
        if path.is_file():
            if path.suffix not in FILE_FORMATS:
                raise UserError(
                    f"Cannot read {name}: {path.suffix or 'no'} suffix; known are {', '.join(FILE_FORMATS)}."
                )
            if split != "train":
                raise UserError(f"{name} is one file and has no split {split!r}. Leave dataset_split at train.")
            return datasets.load_dataset(FILE_FORMATS[path.suffix], data_files=name, split="train"), path.parent
        if path.is_dir() and any((path / file).exists() for file in ("state.json", "dataset_dict.json")):
            return _split_of(datasets.load_from_disk(name), name, split), path
        if path.is_dir():
            return datasets.load_dataset(name, split=split), path
        if path.suffix in FILE_FORMATS or name.startswith((".", "/", "~")):
            raise UserError(f"No dataset at {name}. Give an existing file or folder, a hub id, or `digits`.")
        return datasets.load_dataset(name, split=split, revision=revision), None
    except UserError:
        raise
    except Exception as error:  # datasets raises many types for "cannot be had"; its text says which
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Cannot load dataset {name!r} (split {split!r}): {reason} Give an existing file or folder, a hub id that "
            "this machine can reach, or `digits`."
        ) from None


def _split_of(saved: Any, name: str, split: str) -> "Dataset":
    """The split of a saved dataset, which may hold several or just one without a name."""
    splits = saved.keys() if hasattr(saved, "keys") else ["train"]
    if split not in splits:
        raise UserError(f"{name} has no split {split!r}; it has {', '.join(splits)}.{nearest(split, splits)}")
    return saved[split] if hasattr(saved, "keys") else saved


def _keep_encoded(dataset: "Dataset") -> "Dataset":
    """Images stored inside a dataset stay encoded until a row is read."""
    import datasets

    feature = dataset.features["images"]
    if isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
        return dataset.cast_column("images", datasets.List(datasets.Image(decode=False)))
    return dataset


def _check_image_files(dataset: "Dataset", media_root: Path | None) -> None:
    import datasets

    feature = dataset.features["images"]
    if not isinstance(feature, datasets.List) or getattr(feature.feature, "dtype", None) != "string":
        return
    for number, paths in enumerate(dataset["images"]):
        for path in paths or []:
            if not _resolve(path, media_root).is_file():
                raise UserError(
                    f"Row {number} names the image {path!r}, which does not exist under "
                    f"{media_root or Path.cwd()}. Put it there or drop the row."
                )


def _resolve(path: str, media_root: Path | None) -> Path:
    """The file a row names; relative names never lead outside the dataset's own folder."""
    root = (media_root or Path.cwd()).resolve()
    resolved = (root / path).resolve()
    if not Path(path).is_absolute() and not resolved.is_relative_to(root):
        raise UserError(f"Image path {path!r} leads outside {root}. Keep images inside the dataset's folder.")
    return resolved


def open_image(value: Any, media_root: Path | None = None) -> "Image":
    """Open a path, bytes, a `{"bytes", "path"}` record or an image as RGB.

    Raises:
        UserError: the image cannot be read; the message names it.
    """
    from PIL import Image as PILImage

    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    name = value if isinstance(value, str) else f"<{type(value).__name__}>"
    try:
        if isinstance(value, PILImage.Image):
            return value.convert("RGB")
        source = _resolve(value, media_root) if isinstance(value, str) else io.BytesIO(value)
        with PILImage.open(source) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, TypeError, PILImage.DecompressionBombError) as error:
        raise UserError(f"Cannot read the image {name}: {error}. Replace the file or drop its row.") from None


def _row_transform(
    media_root: Path | None, system_prompt: str | None
) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if "images" in batch:
            batch["images"] = _open_images(batch["images"], media_root)
        if "prompt" in batch:
            counts = [len(row) for row in batch["images"]] if "images" in batch else [0] * len(batch["prompt"])
            batch["prompt"] = [
                build_messages(prompt, count, system_prompt)
                for prompt, count in zip(batch["prompt"], counts, strict=True)
            ]
        return batch

    return transform


def _open_images(rows: Sequence[Sequence[Any] | None], media_root: Path | None) -> list[list["Image"]]:
    """Open the images of a batch. GRPO asks for each row once per response; each image is decoded once."""
    opened: dict[Any, Image] = {}

    def open_once(value: Any) -> "Image":
        key = value if isinstance(value, str) else value.get("bytes") or value.get("path")
        if key not in opened:
            opened[key] = open_image(value, media_root)
        return opened[key]

    return [[open_once(value) for value in row or []] for row in rows]
