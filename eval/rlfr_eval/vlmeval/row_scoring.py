"""Find where the score of a row stands in VLMEvalKit's results, and whether its judge can be replaced.

Both are found by trials (`worker/probe.py`): the place is one whose value moves from nothing to full marks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_eval.vlmeval.worker.replay_judge import ROWS
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject

# names that evaluations give to the score of a row, and to that of a table, in order of preference
ROW_COLUMNS = ("hit", "score", "correct", "is_correct", "acc", "accuracy", "match", "judge_score")
TABLE_COLUMNS = ("acc", "accuracy", "Accuracy (%)", "Overall", "overall", "overall_acc", "Average", "ALL", "all")
OVERALL = "Overall"
ECHOED = ("10", "100")  # replies that are tried, and that are no share of full marks
FULL_MARKS = {1.0: "fraction", 100.0: "percent"}  # the largest value of a trial -> unit


@dataclass(frozen=True)
class RowScoring:
    """How the rows of a set are scored.

    Attributes:
        score: place of the score, as [score] of a TOML file has it.
        judged: whether a judge is asked about an answer that rules cannot decide.
        unjudged: why no judge can be asked; "" if one can.
        reply: a judge's reply that VLMEvalKit's evaluation can read; "" if no judge is asked.
    """

    score: Mapping[str, str]
    judged: bool = False
    unjudged: str = ""
    reply: str = ""


def row_scoring(name: str, trials: Sequence[JsonObject], score: Mapping[str, str]) -> RowScoring:
    """Return how rows are scored, from trials with some of them.

    Args:
        score: place of the score, if it is known.

    Raises:
        UserError: rows cannot be evaluated one by one, or the score is not found.
    """
    results = [trial for trial in trials if trial["result"]]
    asked = [trial for trial in trials if trial["prompts"]]
    if not results:
        why = next((trial["failed"] for trial in trials if trial["failed"]), "it has no result")
        raise _refused(name, f"VLMEvalKit's evaluation of a row by itself fails: {why[:300]}")
    for trial in results:
        if score and not trial["failed"]:
            upstream_percent(name, score, trial["result"])
    place = dict(score) or _place(name, results)
    if not asked:
        return RowScoring(place)
    values = {trial["reply"]: value for trial in asked if (value := _value(trial, place)) is not None}
    if len(set(values.values())) > 1:
        return RowScoring(place, judged=True, reply=max(values, key=lambda reply: values[reply]))
    failed = next((trial["failed"] for trial in asked if trial["failed"]), "")
    why = failed if not values and failed else "no reply that was tried moves its score"
    if len(results) == len([trial for trial in asked if trial["result"]]):
        raise _refused(
            name, f"VLMEvalKit asks a judge about all answers, and its replies cannot be replayed: {why[:300]}"
        )
    return RowScoring(place, unjudged=why[:300])


def _value(trial: JsonObject, place: Mapping[str, str]) -> float | None:
    """Return the value of a trial at a place; None if it has none there."""
    try:
        return upstream_percent("", place, trial["result"])
    except UserError:
        return None


def _place(name: str, results: Sequence[JsonObject]) -> dict[str, str]:
    """Return the first place, in order of preference, whose values range from 0 to full marks.

    Raises:
        UserError: there is none.
    """
    for row, column in _places(results):
        found = [(trial, list(_values(trial["result"], row, column))) for trial in results]
        values = [value for _, values in found for value in values]
        if any(not values and not trial["failed"] for trial, values in found) or any(
            str(trial["reply"]) in ECHOED and values == [float(trial["reply"])] for trial, values in found
        ):
            continue  # a column that has a number only where the reply is one, or that is the reply
        if values and min(values) == 0 and max(values) in FULL_MARKS:
            return {"column": column, "row": row, "unit": FULL_MARKS[max(values)]}
    seen = "; ".join(dict.fromkeys(str(trial["result"][:2]) for trial in results))
    raise _refused(
        name,
        "no place in VLMEvalKit's result moves from 0 to 1 or 100 for the answers and replies that were tried. A TOML "
        f"file with [score] (column, row, unit) can name it. Its results: {seen[:400]}",
    )


def _places(results: Sequence[JsonObject]) -> Iterator[tuple[str, str]]:
    """Yield places of known names: of the rows, of a record that is called Overall, and of the first record."""
    yield from ((ROWS, column) for column in ROW_COLUMNS)
    yield from ((OVERALL, column) for column in TABLE_COLUMNS)
    yield from (("0", column) for column in TABLE_COLUMNS)
    firsts = [trial["result"][0] for trial in results if trial["result"][0].get("row") != ROWS]
    if firsts:  # one number under another name, as `treatment_judge_score`
        scores = [key for key in firsts[0] if any(part in key.lower() for part in ("score", "acc"))]
        yield from (("0", key) for key in scores if len(scores) == 1)


def _values(records: Sequence[JsonObject], row: str, column: str) -> Iterator[float]:
    """Yield the values at a place; none if it is not there, or not alone."""
    if row == "0":
        found = [record for record in records[:1] if record.get("row") != ROWS]
    else:
        found = [record for record in records if row in map(str, record.values())]
    if len(found) == 1 and isinstance(found[0].get(column), int | float):
        yield float(found[0][column])


def _refused(name: str, why: str) -> UserError:
    return UserError(f"{name} cannot be scored here: {why}")
