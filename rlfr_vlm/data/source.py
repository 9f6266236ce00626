"""Open one data set: its stored rows, and whether the first ones have the columns that are needed."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rlfr_vlm.data.digit_videos import load_digit_videos
from rlfr_vlm.data.digits import SPLITS, load_digits_task
from rlfr_vlm.data.read import TEXT_COLUMN, RawDataset, keep_encoded, read_dataset
from rlfr_vlm.data.row_loader import Rows
from rlfr_vlm.data.rows import BadRow
from rlfr_vlm.data.tasks import TASKS
from rlfr_vlm.data.word_problems import load_word_problems
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading.gym import PREFIX, generate, is_gym_name
from rlfr_vlm.options import EMBEDDED_TASKS, DataOptions

if TYPE_CHECKING:
    from datasets import Dataset

# Tasks that need no files; EMBEDDED_TASKS of options.py has their names.
EMBEDDED: dict[str, Callable[[str, int, int], "Dataset"]] = {
    "digits": load_digits_task,
    "digits_video": load_digit_videos,
    "word_problems": load_word_problems,
    **{name: task.load for name, task in TASKS.items()},
}
FIRST_ROWS = 20  # rows that are searched for columns that no row has


def open_source(
    name: str,
    options: DataOptions,
    needed: Sequence[str] = ("prompt",),
    seed: int = 0,
    gym_limit: int | None = None,
) -> Rows:
    """Read one data set. Its rows are converted later, when they are used.

    Args:
        name: of the data set; the options may name several.
        options: split, and rules for rows and images.
        needed: columns that every row must have.
        seed: seed of the rows of embedded tasks.
        gym_limit: largest number of rows of a reasoning-gym task, where the options have no limit.

    Raises:
        UserError: the data set or split does not exist, or has no rows.
    """
    split = options.dataset_split
    if options.dataset_limit is not None and options.dataset_limit < 1:
        raise UserError(f"dataset_limit is {options.dataset_limit}; it is a number of rows, at least 1.")
    if not name:
        tasks = ", ".join(EMBEDDED_TASKS)
        raise UserError(
            f"dataset_name is not set. Give a file, a folder, a hub id, {PREFIX}TASK or a built-in task: {tasks}."
        )
    if name in EMBEDDED:
        if split not in SPLITS:
            raise UserError(
                f"{name} has no split {split!r}; it has {' and '.join(SPLITS)}. Set dataset_split to one of them."
            )
        raw = RawDataset(keep_encoded(EMBEDDED[name](split, options.dataset_limit or 4096, seed)), None)
    elif is_gym_name(name):
        raw = RawDataset(_gym_dataset(name, split, options.dataset_limit or gym_limit, needed, seed), None)
    else:
        raw = read_dataset(name, split, options.dataset_revision, options.dataset_config)
        if options.dataset_limit is not None:
            raw.dataset = raw.dataset.select(range(min(options.dataset_limit, len(raw.dataset))))
    if len(raw.dataset) == 0:
        raise UserError(f"Dataset {name} (split {split}) has no rows.")
    return Rows(raw, options, needed)


def is_made_here(name: str) -> bool:
    """Whether the rows of a data set are made on this machine, from no files."""
    return name in EMBEDDED or is_gym_name(name)


def _gym_dataset(name: str, split: str, limit: int | None, needed: Sequence[str], seed: int) -> "Dataset":
    """Return the rows of a reasoning-gym task.

    Raises:
        UserError: responses are needed, or the rows cannot be generated.
    """
    from datasets import Dataset

    if "response" in needed:
        raise UserError(
            f"{name} has no expert responses: tasks of reasoning-gym have questions and answers alone. Draw responses "
            f"with `rlfr sample --data '{name}'`, and give the file that it writes."
        )
    rows = generate(name, split, limit, seed)
    return Dataset.from_dict({TEXT_COLUMN: [json.dumps(row) for row in rows]})  # an answer may look like a list


def columns_of_first_rows(rows: Rows) -> tuple[list[str], set[str]]:
    """Return the columns of the first rows, as they are stored and after conversion."""
    stored: dict[str, None] = {}
    converted: set[str] = set()
    for number in range(min(FIRST_ROWS, rows.size)):
        try:
            raw = rows.raw.row(rows.raw.dataset[number])
            stored |= dict.fromkeys(map(str, raw))
            converted |= set(rows.convert(raw))
        except (BadRow, TypeError):
            continue
    return list(stored), converted


def check_first_rows(rows: Rows, name: str) -> None:
    """Raise an error if none of the first rows has a needed column, which is a mistake in the configuration."""
    stored, converted = columns_of_first_rows(rows)
    if not stored:
        return
    for column, source in rows.convert.mapping.items():
        if source not in stored:
            raise UserError(
                f"dataset_columns maps {column} to {source!r}, but {name} has {', '.join(stored)}."
                f"{nearest(source, stored)}"
            )
    for column in rows.needed:
        if column not in converted and column not in stored:
            raise UserError(
                f"Dataset {name} has no column {column!r}; it has {', '.join(stored)}.{nearest(column, stored)} Map "
                f"it with dataset_columns: [{column}=...], or choose another dataset."
            )
