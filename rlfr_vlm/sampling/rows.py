"""Rows that `rlfr sample` writes: a row of the data with one graded response, in the documented row format.

Beside the columns of `data/rows.py` a row has
    response          text of the response, which replaces an expert's
    completion_ids    its tokens, or null
    verdict           right, wrong or undecided
    extracted, reason the answer that was graded, and why a verdict is undecided (or why there is no response)
    logp, truncated   see `sampling/engine.py`
    prompt_index      number of the row in the data
    sample_index      number of the response, from 0
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlfr_vlm.data.prompts import without_videos
from rlfr_vlm.data.rows import Row
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Grade, GradingPool, Item, Reason, Verdict, grade_many
from rlfr_vlm.grading.gym import ENTRY_COLUMN
from rlfr_vlm.sampling.engine import Sample

if TYPE_CHECKING:
    from rlfr_vlm.sampling.prompts import Draw

RESULT_COLUMNS = (
    *("response", "completion_ids", "verdict", "extracted", "reason"),
    *("logp", "truncated", "prompt_index", "sample_index"),
)
NO_RESPONSE = "no response: "  # start of the reason where an engine gave none
OPENED_COLUMNS = ("row_number", "image_paths", "video_names")  # that opening a row adds


def grade_samples(
    draws: Sequence["Draw"], samples: Sequence[Sample], no_answer_is_wrong: bool, tolerance: float, pool: GradingPool
) -> list[JsonObject]:
    """Return verdict, extracted answer and reason of each response, as the reward `accuracy` judges it."""
    items = [
        Item(
            draw.row["answer"],
            sample.text,
            None,
            draw.row.get("options") or (),
            draw.row.get("answer_type"),
            draw.row.get(ENTRY_COLUMN) or "",
        )
        for draw, sample in zip(draws, samples, strict=True)
    ]
    grades = grade_many(items, tolerance=tolerance, pool=pool)
    return [_verdict(sample, grade, no_answer_is_wrong) for sample, grade in zip(samples, grades, strict=True)]


def _verdict(sample: Sample, grade: Grade, no_answer_is_wrong: bool) -> JsonObject:
    if sample.fault:  # there is nothing that could be wrong
        return {"verdict": Verdict.UNDECIDED.value, "extracted": None, "reason": NO_RESPONSE + sample.fault}
    wrong = no_answer_is_wrong and grade.reason == Reason.NO_ANSWER
    verdict = Verdict.WRONG if wrong else grade.verdict
    return {"verdict": verdict.value, "extracted": grade.extracted, "reason": grade.reason}


def result_row(draw: "Draw", sample: Sample, graded: JsonObject, media: JsonObject) -> JsonObject:
    """Return the row of one response.

    Args:
        draw: the row of the data.
        sample: its response.
        graded: of `grade_samples`.
        media: the row's images and videos as `stored_media` returns them.
    """
    own = {name: value for name, value in draw.row.items() if name not in (*OPENED_COLUMNS, *RESULT_COLUMNS)}
    return {
        **own,
        "prompt": without_videos(draw.row["prompt"]),
        **media,
        "response": sample.text,
        "completion_ids": sample.ids,
        **graded,
        "logp": sample.logp,
        "truncated": sample.truncated,
        "prompt_index": draw.prompt,
        "sample_index": draw.sample,
    }


def replaced_columns(row: Row) -> list[str]:
    """Return the columns of a row of the data that the written rows have with another meaning."""
    return [name for name in RESULT_COLUMNS if name in row]
