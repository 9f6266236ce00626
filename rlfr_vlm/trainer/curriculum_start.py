"""Success rates of prompts before training, from a file that `rlfr sample` wrote for the same data."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.rows import BadRow
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.sampling.sample_file import Outcome
from rlfr_vlm.sampling.summary import PromptTally

if TYPE_CHECKING:
    from datasets import Dataset

    from rlfr_vlm.data.load import Rows


def read_start(path: Path, dataset: "Dataset") -> dict[int, PromptTally]:
    """Return the verdicts on the responses to the prompts of a data set, by the place of the prompt.

    Prompts that the file has and the data set does not use are left out, as are bad rows, which are replaced.

    Raises:
        UserError: the file cannot be read, is none of `rlfr sample`, or is of other data.
    """
    rows: Rows = dataset.format["format_kwargs"]["transform"]
    places = {number: place for place, number in enumerate(dataset.with_format(None)["number"])}
    tallies: dict[int, PromptTally] = {}
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                row, outcome = _outcome(line, f"Line {number} of {path}")
                place = places.get(outcome.prompt)
                if place is None or (place not in tallies and not _is_row_of(rows, outcome.prompt, row, path)):
                    continue
                tally = tallies.setdefault(place, PromptTally())
                tally.right += outcome.verdict == Verdict.RIGHT.value
                tally.wrong += outcome.verdict == Verdict.WRONG.value
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"curriculum_start {path} cannot be read: {error}. Name a file that `rlfr sample` wrote, or unset it."
        ) from None
    if not tallies:
        raise UserError(
            f"curriculum_start {path} has no response to a prompt of the data set. Name a file that `rlfr sample` "
            "wrote for this data set, or unset it."
        )
    return tallies


def _outcome(line: str, place: str) -> tuple[JsonObject, Outcome]:
    """Return a line as a row, and what is counted of it."""
    try:
        row = json.loads(line)
        return row, Outcome.of(row)
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{place}, the curriculum_start, is no row of `rlfr sample`. Name a file that it wrote, or unset it."
        ) from None


def _is_row_of(rows: "Rows", number: int, row: JsonObject, path: Path) -> bool:
    """Return whether a row of the data can be used.

    Raises:
        UserError: it has another prompt than the row of the file.
    """
    try:
        prompt = rows.parse(number)["prompt"]
    except BadRow:
        return False
    if prompt != row.get("prompt"):
        raise UserError(
            f"curriculum_start {path} has responses to another prompt than that of {rows.place(number)}: they are of "
            "other data, or had another system_prompt. Sample the data anew, or unset it."
        )
    return True
