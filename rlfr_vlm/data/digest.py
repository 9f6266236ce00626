"""A digest of the rows of a data set: a resumed run keeps no success rates of other rows."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from rlfr_vlm.data.rows import BadRow

if TYPE_CHECKING:
    from datasets import Dataset

SAMPLED_ROWS = 64  # whose prompts and answers are read, since all may take long


def digest_of(dataset: "Dataset") -> str:
    """Return a digest of the numbers of the rows in use, and of some rows, spread evenly over them.

    Args:
        dataset: of `as_dataset`, or a part of one.
    """
    rows = dataset.format["format_kwargs"]["transform"]
    numbers = list(dataset.with_format(None)["number"])
    digest = hashlib.sha256(np.asarray(numbers, dtype=np.int64).tobytes())
    for number in numbers[:: -(-len(numbers) // SAMPLED_ROWS)]:
        try:
            row = rows.converted(number)
            digest.update(repr((row["prompt"], row.get("answer"))).encode())
        except BadRow as error:
            digest.update(f"bad row: {error.reason}".encode())
    return digest.hexdigest()[:16]
