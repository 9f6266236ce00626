"""Run VLMEvalKit's own evaluation of a whole data set with known judge replies instead of its judge."""

import builtins
import contextlib
import math
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rlfr_eval.vlmeval.worker.guard import Refused, blocked_attempt, clear_blocked_attempt
from rlfr_eval.vlmeval.worker.replay_judge import ROWS, Undecidable, ValueNeeded, need_key
from rlfr_eval.vlmeval.worker.tables import Table, Unusable

if TYPE_CHECKING:
    import pandas

JUDGE = "judge"  # without a slash, since VLMEvalKit uses the name in file names
FAILED = "Failed to obtain answer via API."  # what VLMEvalKit's client returns after a failure
UNREADABLE = "VLMEvalKit could not read the judge's reply"

Message = str | dict[str, str]  # a text, or a part of a prompt
Record = dict[str, object]  # a row of VLMEvalKit's result table, as plain values
UPSTREAM: dict[str, Any] = {}  # functions of VLMEvalKit that are replaced for scoring row by row


class ReplayClient:
    """Replaces VLMEvalKit's judge client. A prompt without a known reply is recorded and fails.

    VLMEvalKit creates the instances, hence the class attributes.

    Attributes:
        replies: key of a prompt -> parsed reply.
        needs: key -> prompt without a known reply.
        asked: keys of the prompts with a known reply, in the order in which they were asked.
        one_row: whether a single row is evaluated. Its first prompt without a reply ends the evaluation, and so does
            a prompt that is asked again: that is what VLMEvalKit does with a reply that it cannot read.
        undecidable: why the evaluation has no valid result, whatever VLMEvalKit returns; "" if it has one.
    """

    replies: Mapping[str, object] = {}
    needs: dict[str, Record] = {}  # noqa: RUF012
    asked: list[str] = []  # noqa: RUF012
    one_row = False
    undecidable = ""

    def __init__(self, model: str = "", **options: object) -> None:
        self.system_prompt = str(options.get("system_prompt") or "")

    def working(self) -> bool:
        return True

    def generate(self, message: Message | list[Message], **sampling: object) -> str:
        """Return the known reply to a prompt.

        Raises:
            ValueNeeded: the reply is not known, and a single row is evaluated.
            Undecidable: the prompt has images, or VLMEvalKit asks again for a reply that it has got.
        """
        parts = message if isinstance(message, list) else [message]
        if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in parts):
            self._stop("its judge wants to see images, which is not supported here")
        prompt = "\n".join(str(part.get("value", part)) if isinstance(part, dict) else str(part) for part in parts)
        key = need_key(self.system_prompt, prompt)
        if key in self.replies:
            if self.one_row and key in self.asked:
                self._stop(UNREADABLE)
            self.asked.append(key)
            return str(self.replies[key])
        self.needs[key] = {"key": key, "prompt": prompt, "system": self.system_prompt}
        if self.one_row:
            raise ValueNeeded(**self.needs[key])
        return FAILED

    def _stop(self, why: str) -> NoReturn:
        ReplayClient.undecidable = why
        raise Undecidable(why)


def refuse_random_choice(options: object) -> str:
    """Replace `random.choice`, with which VLMEvalKit chooses an option if a response names none.

    Raises:
        Undecidable: always.
    """
    ReplayClient.undecidable = "no option is named; VLMEvalKit would choose one at random"
    raise Undecidable(ReplayClient.undecidable)


def replace_functions() -> None:
    """Replace `random.choice` and `exit`; keep the function that `evaluate_upstream` restores for its duration."""
    from vlmeval.dataset.utils import mathv

    UPSTREAM["is_equal"] = mathv.is_equal
    random.choice = refuse_random_choice  # type: ignore[assignment]
    builtins.exit = sys.exit  # type: ignore[assignment]  # the interpreter's own closes standard input, on which requests arrive


def evaluate_upstream(
    table: Table, predictions: Mapping[str, str], replies: Mapping[str, object], one_row: bool = False
) -> dict[str, Any]:
    """Run VLMEvalKit's `evaluate` in a temporary folder.

    Args:
        predictions: row id -> response; rows without a response are dropped.
        replies: key of a judge prompt -> parsed reply.
        one_row: whether a single row is evaluated; see `ReplayClient`.

    Returns:
        `result`: VLMEvalKit's table as records, and last the means of what it wrote beside the rows, as a record with
        `row`: ROWS. `needs`: judge prompts without a reply. `failed`: why there is no table.
    """
    import vlmeval.api
    from vlmeval.dataset.utils import mathv, multiple_choice

    frame = table.frame[[str(index) in predictions for index in table.frame["index"]]].copy()
    frame["prediction"] = [predictions[str(index)].encode(errors="replace").decode() for index in frame["index"]]
    ReplayClient.replies, ReplayClient.needs, ReplayClient.undecidable = replies, {}, ""
    ReplayClient.asked, ReplayClient.one_row = [], one_row
    clear_blocked_attempt()
    original_client, vlmeval.api.OpenAIWrapper = vlmeval.api.OpenAIWrapper, ReplayClient
    os.environ["PRED_FORMAT"] = "tsv"
    replaced_is_equal, mathv.is_equal = mathv.is_equal, UPSTREAM["is_equal"]
    records: list[Record] = []
    failed = ""
    try:
        with tempfile.TemporaryDirectory(prefix="vlmeval-") as folder, contextlib.ExitStack() as stack:
            path = Path(folder) / f"answers_{table.name}.tsv"
            frame.to_csv(path, sep="\t", index=False)
            # also if VLMEvalKit fails to aggregate what it has written
            stack.callback(lambda: records.extend(_row_means(Path(folder), frame)))
            # mcq_circular_eval leaves a table at /tmp/{timestr()}.tsv; this one is removed with the folder
            first_rows = os.path.relpath(Path(folder).resolve() / "first_rows", Path("/tmp").resolve())
            multiple_choice.timestr = lambda: first_rows
            records.extend(_records(table.dataset.evaluate(str(path), model=JUDGE, nproc=1)))
    # VLMEvalKit raises arbitrary exceptions on unusual rows, and one of its sets exits
    except (Exception, SystemExit, Undecidable, ValueNeeded, Refused) as error:
        failed = f"{type(error).__name__}: {error}"
    finally:
        vlmeval.api.OpenAIWrapper, mathv.is_equal = original_client, replaced_is_equal
    if stopped := blocked_attempt() or ReplayClient.undecidable:
        records, failed = [], stopped
    return {"result": records, "needs": list(ReplayClient.needs.values()), "failed": failed}


def _records(result: Any) -> list[Record]:
    """Convert a table, or a dictionary of scores, to records of plain values.

    A tuple of tables, such as scores by two divisions, is one after the other.

    Raises:
        Unusable: the result is none of them.
    """
    if isinstance(result, tuple | list) and result:
        return [record for part in result for record in _records(part)]
    if hasattr(result, "to_dict"):
        return [{str(key): _plain(value) for key, value in row.items()} for row in result.to_dict("records")]
    if isinstance(result, dict):
        return [{key: _plain(value) for key, value in _flat(result)}]
    raise Unusable(f"VLMEvalKit's evaluation returned {type(result).__name__}, which is no table")


def _flat(scores: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dictionaries, with keys such as `Overall/acc`."""
    for key, value in scores.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _row_means(folder: Path, frame: "pandas.DataFrame") -> list[Record]:
    """Return a record of the means of all numbers that VLMEvalKit wrote beside the rows; empty if it wrote none."""
    import pandas

    known = {str(column).lower() for column in frame.columns}
    numbers: Record = {}
    for path in sorted(folder.glob("*.tsv")):
        try:
            written = pandas.read_csv(path, sep="\t")
        except (ValueError, UnicodeError):
            continue
        if len(written) != len(frame) or "prediction" not in written.columns:
            continue
        for column in written.columns:
            is_number = pandas.api.types.is_numeric_dtype(written[column])  # True and False are numbers
            if str(column).lower() not in known and is_number and not written[column].isna().any():
                numbers[str(column)] = float(written[column].mean())
    return [{"row": ROWS, **numbers}] if numbers else []


def _plain(value: Any) -> object:
    """Convert a NumPy scalar or other value to a JSON value; NaN and infinity to None."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
