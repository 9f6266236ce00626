"""Load a data set, or a mixture of several, for training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.mixture import read_mixture
from rlfr_vlm.data.row_loader import Rows
from rlfr_vlm.data.source import check_first_rows, open_source
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Rows", "as_dataset", "load_rows", "read_rows"]


def read_rows(
    options: DataOptions, needed: Sequence[str] = ("prompt",), seed: int = 0, gym_limit: int | None = None
) -> Rows:
    """Read the data set of the options, or the mixture of several. Rows are converted later, when they are used.

    Args:
        options: data set, split, and rules for rows and images.
        needed: columns that every row must have.
        seed: seed of the rows of embedded tasks.
        gym_limit: largest number of rows of a reasoning-gym task, where the options have no limit.

    Raises:
        UserError: a data set or split does not exist, has no rows, or its first rows lack a needed column.
    """
    if not isinstance(options.dataset_name, str):
        return read_mixture(options, needed, seed, gym_limit)
    rows = open_source(options.dataset_name, options, needed, seed, gym_limit)
    check_first_rows(rows, options.dataset_name)
    return rows


def as_dataset(rows: Rows, keep: Sequence[int] | None = None) -> "Dataset":
    """Return a dataset that converts rows when they are read. `keep` selects row numbers."""
    import datasets

    if keep is not None:
        rows.indices = sorted(keep)
    return datasets.Dataset.from_dict({"number": list(rows.indices)}).with_transform(rows)


def load_rows(
    name: str | list[str],
    *,
    columns: Sequence[str] = ("prompt",),
    seed: int = 0,
    split: str = "train",
    limit: int | None = None,
    revision: str | None = None,
    system_prompt: str | None = None,
    **options: Any,
) -> "Dataset":
    """Load a data set for training.

    Args:
        name: a file, a folder, a hub id or a built-in task (`EMBEDDED_TASKS` of options.py), or a list of them, which
            may have weights: `["a.jsonl:0.7", "digits:0.3"]`.
        columns: columns that every row must have.
        seed: seed of the rows of embedded tasks.
        split: split of the data set.
        limit: number of rows to use; None uses all.
        revision: revision of a hub data set.
        system_prompt: system message to add to every prompt.
        options: other fields of `DataOptions`.

    Raises:
        UserError: the data set, the split or a column does not exist.
    """
    data_options = DataOptions(
        dataset_name=name,
        dataset_split=split,
        dataset_limit=limit,
        dataset_revision=revision,
        system_prompt=system_prompt,
        **options,
    )
    return as_dataset(read_rows(data_options, columns, seed))
