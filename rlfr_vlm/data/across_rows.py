"""Checks that need the whole data set: golds that the grader cannot read, and prompts that occur more than once.

`rlfr check-data` and `rlfr train` make these checks; `row_checks.py` has those of a single row.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.grading import Reason, Verdict, gold_list, unreadable_golds
from rlfr_vlm.grading.gym import ENTRY_COLUMN
from rlfr_vlm.grading.rules import apply_rules

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.data.load import Rows

UNREADABLE, DUPLICATE, TWO_ANSWERS = "gold answer", "duplicate", "two answers"


@dataclass(frozen=True)
class RowKey:
    """What is compared between rows.

    Attributes:
        digest: hash of prompt and images (and response, if one is needed).
        golds: acceptable gold answers; empty where none is needed.
    """

    digest: bytes
    golds: tuple[str, ...] = ()


def unreadable_rows(keys: Mapping[int, RowKey], tolerated: Sequence[str] = ()) -> dict[int, BadRow]:
    """Return the rows for which the grader can read none of the acceptable golds, by number.

    Args:
        keys: of the rows that are good on their own.
        tolerated: reasons for which a gold counts as readable.
    """
    reasons = unreadable_golds([gold for key in keys.values() for gold in key.golds])
    unreadable = {gold: reason for gold, reason in reasons.items() if reason not in tolerated}
    return {
        number: BadRow(UNREADABLE, f"{key.golds[0]!r:.200}: {unreadable[key.golds[0]]}")
        for number, key in keys.items()
        if key.golds and all(gold in unreadable for gold in key.golds)
    }


def repeated_rows(keys: Mapping[int, RowKey], place: Callable[[int], str] = "row {}".format) -> dict[int, BadRow]:
    """Return all but the first of the rows with the same digest, by number. `place` names a row."""
    first: dict[bytes, int] = {}
    bad = {}
    for number, key in sorted(keys.items()):
        earlier = first.setdefault(key.digest, number)
        if earlier == number:
            continue
        if contradict(key.golds, keys[earlier].golds):
            answers = f"{key.golds[0]!r:.80}, and {place(earlier)} with the same prompt {keys[earlier].golds[0]!r:.80}"
            bad[number] = BadRow(TWO_ANSWERS, f"it has the answer {answers}")
        else:
            bad[number] = BadRow(DUPLICATE, f"it has the prompt and images of {place(earlier)}")
    return bad


def contradict(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether each gold is wrong for each of the other row's golds, by the rules without algebra.

    >>> contradict(["7"], ["8"]), contradict(["7"], ["8", "7.0"]), contradict(["red car"], ["the red car"])
    (True, False, False)
    """
    decisions = [apply_rules(one, other) for one in first for other in second]
    return bool(decisions) and all(one is not None and one.verdict is Verdict.WRONG for one in decisions)


def bad_across_rows(
    keys: Mapping[int, RowKey], tolerated: Sequence[str] = (), place: Callable[[int], str] = "row {}".format
) -> dict[int, BadRow]:
    """Return the rows with unreadable golds, and the later ones of readable rows that repeat another, by number.

    Args:
        keys, tolerated: as for `unreadable_rows`.
        place: names a row.
    """
    unreadable = unreadable_rows(keys, tolerated)
    readable = {number: key for number, key in keys.items() if number not in unreadable}
    return unreadable | repeated_rows(readable, place)


def refused_in_training(rows: "Rows", processing_class: "ProcessingClass", graded: bool) -> dict[int, BadRow]:
    """Return the rows that are bad across rows or for the policy's chat template, without opening an image file.

    Rows that repeat another with its answer stay, as repeating rows is a way to weight them. Golds that cannot be read
    for want of time stay as well: another start of the run would decide otherwise.

    Args:
        rows: the data set.
        processing_class: the policy's processor or tokenizer.
        graded: whether the grader reads the golds; a reward of the user's own may read any text.
    """
    from tqdm import tqdm

    from rlfr_vlm.data.encode import checked_prompt

    keys, refused = {}, {}
    for number in tqdm(rows.indices, desc="rows", unit="row", leave=False, delay=2):
        try:
            row = rows.parse(number)
        except BadRow:
            continue  # counted when it is read
        try:
            checked_prompt(processing_class, row)
            keys[number] = _key(row, graded)
        except BadRow as error:
            refused[number] = error
    bad = bad_across_rows(keys, (Reason.TIME_OUT, Reason.CRASH), rows.place)
    return refused | {number: row for number, row in bad.items() if row.reason != DUPLICATE}


def _key(row: Row, graded: bool) -> RowKey:
    digest = hashlib.sha256(prompt_text(row).encode())
    for image in row["images"]:
        value = image.get("bytes") or image.get("path") if isinstance(image, dict) else image
        digest.update(hashlib.sha256(value if isinstance(value, bytes) else str(value).encode()).digest())
    return RowKey(digest.digest()[:16], golds_of(row) if graded else ())


def golds_of(row: Row) -> tuple[str, ...]:
    """Return the golds that the grader reads; none of a row that a task's own scorer grades."""
    return () if row.get(ENTRY_COLUMN) else tuple(gold_list(row["answer"]))


def prompt_text(row: Row) -> str:
    """Return the text of a checked row's prompt, which is compared between rows."""
    return "\n".join(message["content"] for message in flatten_text(row["prompt"]))
