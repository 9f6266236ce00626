"""Look at a data set: check its first rows as `rlfr check-data` does, and note what a configuration depends on."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.check import DataReport, check_rows
from rlfr_vlm.data.encode import tokenizer_of
from rlfr_vlm.data.images import image_size
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.read import FILE_FORMATS, URL
from rlfr_vlm.data.row_checks import NO_FORMAT
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.options import EMBEDDED_TASKS, DataOptions
from rlfr_vlm.sources import joined
from rlfr_vlm.starting_config.model import NOT_CACHED, ModelFacts

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass

NEEDED = ("prompt", "answer")
FIRST_ROWS = 200


@dataclass
class DataFacts:
    """What is known of a data set.

    Attributes:
        name: as `dataset_name`; empty if none is named.
        rows: the whole set, unchecked; None where it cannot be read.
        report: of the first rows.
        unread: why the set cannot be read; empty where it can, and without a name.
        largest_image: width and height; None without images.
        has_videos: whether a row has a video.
        asks_for_format: whether all prompts ask for an answer format.
        asks_for_tags: whether all prompts name the tag <answer>.
        responses: number of rows with a response.
        response_tokens: of the longest response; None without responses or tokenizer.
    """

    name: str = ""
    rows: Rows | None = None
    report: DataReport | None = None
    unread: str = ""
    largest_image: tuple[int, int] | None = None
    has_videos: bool = False
    asks_for_format: bool = False
    asks_for_tags: bool = False
    responses: int = 0
    response_tokens: int | None = None

    @property
    def number_of_rows(self) -> int | None:
        """Rows of the set; None where it cannot be read."""
        return None if self.rows is None else len(self.rows.indices)


def look_at_data(options: DataOptions, model: ModelFacts) -> DataFacts:
    """Check the first rows of a data set.

    Raises:
        UserError: the data set is named by a path and cannot be read, none of the first rows can be used, or they have
            images and the model takes none.
    """
    name = options.dataset_name
    if not isinstance(name, str):
        raise UserError(f"{joined(name)} are several data sets; the first rows of one are looked at. Name one.")
    if not name:
        return DataFacts()
    try:
        rows = read_rows(options, NEEDED)
    except UserError:
        if not may_be_hub_id(name):
            raise
        return DataFacts(name, unread=f"{NOT_CACHED}.{nearest(name, EMBEDDED_TASKS)}")
    first = dataclasses.replace(options, dataset_limit=min(FIRST_ROWS, options.dataset_limit or FIRST_ROWS))
    report = check_rows(first, NEEDED, model.name if model.processing_class else "", workers=1, progress=False)
    if not report.kept:
        examples = "; ".join(f"{reason}: {rows[0]}" for reason, rows in report.examples.items())
        raise UserError(
            f"None of the first {report.rows} rows of {name} can be used ({examples}). `rlfr check-data` says what "
            "mends each kind."
        )
    if report.images and model.takes_images is False:
        raise UserError(f"{name} has images, and {model.name} takes none. Name a model with a vision tower.")
    facts = DataFacts(name, rows, report)
    facts.asks_for_format = report.notes[NO_FORMAT] == 0
    _note_rows(facts, read_rows(first, NEEDED), report.kept, model.processing_class)
    return facts


def may_be_hub_id(name: str) -> bool:
    """Whether a name may be a hub id: it names nothing on this machine, and is not written as a path.

    >>> may_be_hub_id("org/rows"), may_be_hub_id("rows.jsonl"), may_be_hub_id("./rows"), may_be_hub_id("digits")
    (True, False, False, False)
    """
    path = Path(name).expanduser()
    written_as_path = path.suffix in FILE_FORMATS or name.startswith((".", "/", "~")) or "\\" in name
    return not (path.exists() or written_as_path or URL.match(name) or name in EMBEDDED_TASKS)


def _note_rows(
    facts: DataFacts, rows: Rows, numbers: Sequence[int], processing_class: "ProcessingClass | None"
) -> None:
    """Note images, videos, tags and responses of rows that can be used."""
    sizes: list[tuple[int, int]] = []
    responses: list[str] = []
    facts.asks_for_tags = True
    for number in numbers:
        converted = rows.converted(number)
        row = rows.checked(converted)
        text = "\n".join(message["content"] for message in flatten_text(row["prompt"]))
        facts.asks_for_tags &= "<answer>" in text
        facts.has_videos |= bool(row.get("videos"))
        sizes += [image_size(image, rows.rules_of(row)) for image in row["images"]]
        if isinstance(response := converted.get("response"), str) and response.strip():
            responses.append(response)
    facts.largest_image = max(sizes, key=lambda size: size[0] * size[1], default=None)
    facts.responses = len(responses)
    if responses and processing_class is not None:
        ids = tokenizer_of(processing_class)(responses, add_special_tokens=False)["input_ids"]
        facts.response_tokens = max(map(len, ids)) + 1  # and the end of the turn
