"""Find the rows that are one question: rotations of its options in circular sets, pairs of images in MMVP.

VLMEvalKit decides by a set's name how it is scored (`ImageMCQDataset.evaluate_heuristic`, ms-vlmeval 0.0.20).
"""

from typing import TYPE_CHECKING

from rlfr_eval.vlmeval.worker.tables import Table, Unusable

if TYPE_CHECKING:
    import pandas

CIRCULAR, PAIRS = "circular", "pairs"
CIRCULAR_NAMES = ("mmbench", "ccbench", "circular", "mmcr")  # parts of names, in lower case
ROTATION = 1_000_000  # a rotation's index is that of its question plus a multiple of this
GROUP_COLUMN = "g_index"  # index of the question, where a file has the column


def grouping(table: Table) -> str:
    """Return how rows form questions: `circular`, `pairs`, or "" where each row is a question.

    A user's file is circular if it has the column `g_index`, whatever its name.

    Raises:
        Unusable: the set is scored in another way.
    """
    from vlmeval.dataset import image_mcq

    if table.custom:
        return CIRCULAR if GROUP_COLUMN in table.frame.columns and "B" in table.frame.columns else ""
    name = table.name.lower()
    is_circular = any(part in name for part in CIRCULAR_NAMES)
    if not isinstance(table.dataset, image_mcq.ImageMCQDataset) and "circular" not in name:
        is_circular = GROUP_COLUMN in table.frame.columns  # LiveMMBench is called so, and is no set of options
    if "mmsci" in name:
        raise _not_supported(table, "its score is a mean over settings, not over rows")
    if not is_circular:
        return PAIRS if table.name == "MMVP" else ""
    if type(table.dataset).evaluate is not image_mcq.ImageMCQDataset.evaluate:
        raise _not_supported(
            table, f"{type(table.dataset).__name__} has an evaluation of its own, which may count groups of rows"
        )
    if "lego" in name:
        raise _not_supported(table, "within a group, answers that put options in order are read by other rules")
    return CIRCULAR


def group_ids(table: Table, how: str) -> dict[str, str]:
    """Return row id -> id of the question's first row; empty where each row is a question.

    Args:
        how: as `grouping` returns it.

    Raises:
        Unusable: an index is no number, or a row's question is not in the file.
    """
    if not how:
        return {}
    frame = table.frame
    ids = [str(index) for index in frame["index"]]
    if not table.custom and not all(index.isdigit() for index in ids):
        raise Unusable(f"{table.file} has an index that is no number; {table.name} is scored over groups by it.")
    questions = dict(zip(ids, _circles(frame, ids), strict=True)) if how == CIRCULAR else _pairs(frame, ids, table)
    for row, question in questions.items():
        if questions.get(question) != question:
            raise Unusable(
                f"Row {row} of {table.file} belongs to question {question}, whose own row is not there or has no "
                "image. VLMEvalKit would drop all of the question; take its rows out, or complete the file."
            )
    return questions


def _circles(frame: "pandas.DataFrame", ids: list[str]) -> list[str]:
    """Return the question of each row: its `g_index`, else its index without the multiple of `ROTATION`."""
    if GROUP_COLUMN not in frame.columns:
        return [str(int(index) % ROTATION) for index in ids]
    return [str(cell).removesuffix(".0") for cell in frame[GROUP_COLUMN]]  # NumPy floats where a cell is empty


def _pairs(frame: "pandas.DataFrame", ids: list[str], table: Table) -> dict[str, str]:
    """Return row id -> id of the first row of its pair. Rows in the order of their index are paired two by two."""
    texts = dict(zip(ids, frame["question"], strict=True))
    ordered = sorted(ids, key=int)
    pairs = list(zip(ordered[::2], ordered[1::2], strict=False))
    if len(ordered) % 2 or any(texts[first] != texts[second] for first, second in pairs):
        raise Unusable(f"{table.file}: two rows in succession must ask the same question; {table.name} pairs them.")
    return {row: pair[0] for pair in pairs for row in pair}


def _not_supported(table: Table, why: str) -> Unusable:
    return Unusable(f"{table.name} cannot be scored here: {why}.")
