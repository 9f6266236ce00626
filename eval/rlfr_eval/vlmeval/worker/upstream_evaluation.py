"""Run VLMEvalKit's own evaluation of a whole data set with known judge replies instead of its judge."""

import math
import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlfr_eval.vlmeval.worker.guard import Refused, blocked_attempt, clear_blocked_attempt
from rlfr_eval.vlmeval.worker.replay_judge import Undecidable, need_key
from rlfr_eval.vlmeval.worker.tables import Table, Unusable

JUDGE = "judge"  # without a slash, since VLMEvalKit uses the name in file names
FAILED = "Failed to obtain answer via API."  # what VLMEvalKit's client returns after a failure

Record = dict[str, object]  # a row of VLMEvalKit's result table, as plain values
UPSTREAM: dict[str, Any] = {}  # functions of VLMEvalKit that are replaced for scoring row by row


class ReplayClient:
    """Replaces VLMEvalKit's judge client. A prompt without a known reply is recorded and fails.

    VLMEvalKit creates the instances, hence the class attributes.

    Attributes:
        replies: key of a prompt -> parsed reply.
        needs: key -> prompt without a known reply.
        undecidable: why the evaluation has no valid result, whatever VLMEvalKit returns; "" if it has one.
    """

    replies: Mapping[str, object] = {}
    needs: dict[str, Record] = {}  # noqa: RUF012
    undecidable = ""

    def __init__(self, model: str, **options: object) -> None:
        self.system_prompt = ""

    def working(self) -> bool:
        return True

    def generate(self, message: str | list[str | dict[str, str]], **sampling: object) -> str:
        parts: list[str | dict[str, str]] = message if isinstance(message, list) else [message]
        if any(isinstance(part, dict) and part.get("type") != "text" for part in parts):
            ReplayClient.undecidable = "its judge wants to see images, which is not supported here"
            raise Undecidable(ReplayClient.undecidable)
        prompt = "\n".join(part["value"] if isinstance(part, dict) else str(part) for part in parts)
        key = need_key(self.system_prompt, prompt)
        if key in self.replies:
            return str(self.replies[key])
        self.needs[key] = {"key": key, "prompt": prompt, "system": self.system_prompt}
        return FAILED


def refuse_random_choice(options: object) -> str:
    """Replace `random.choice`, with which VLMEvalKit chooses an option if a response names none.

    Raises:
        Undecidable: always.
    """
    ReplayClient.undecidable = "no option is named; VLMEvalKit would choose one at random"
    raise Undecidable(ReplayClient.undecidable)


def replace_functions() -> None:
    """Replace `random.choice`, and store the function that `evaluate_upstream` restores for its duration."""
    from vlmeval.dataset.utils import mathv

    UPSTREAM["is_equal"] = mathv.is_equal
    random.choice = refuse_random_choice  # type: ignore[assignment]


def evaluate_upstream(
    table: Table, predictions: Mapping[str, str], replies: Mapping[str, object]
) -> dict[str, object]:
    """Run VLMEvalKit's `evaluate` in a temporary folder.

    Args:
        predictions: row id -> response; rows without a response are dropped.
        replies: key of a judge prompt -> parsed reply.

    Returns:
        `result`: VLMEvalKit's table as records, `needs`: judge prompts without a reply, `failed`: why there is no
        result.
    """
    import vlmeval.api
    from vlmeval.dataset.utils import mathv, multiple_choice

    frame = table.frame[[str(index) in predictions for index in table.frame["index"]]].copy()
    frame["prediction"] = [predictions[str(index)].encode(errors="replace").decode() for index in frame["index"]]
    ReplayClient.replies, ReplayClient.needs, ReplayClient.undecidable = replies, {}, ""
    clear_blocked_attempt()
    original_client, vlmeval.api.OpenAIWrapper = vlmeval.api.OpenAIWrapper, ReplayClient
    os.environ["PRED_FORMAT"] = "tsv"
    replaced_is_equal, mathv.is_equal = mathv.is_equal, UPSTREAM["is_equal"]
    try:
        with tempfile.TemporaryDirectory(prefix="vlmeval-") as folder:
            path = Path(folder) / f"answers_{table.name}.tsv"
            frame.to_csv(path, sep="\t", index=False)
            # mcq_circular_eval leaves a table at /tmp/{timestr()}.tsv; this one is removed with the folder
            first_rows = os.path.relpath(Path(folder).resolve() / "first_rows", Path("/tmp").resolve())
            multiple_choice.timestr = lambda: first_rows
            records = _records(table.dataset.evaluate(str(path), model=JUDGE, nproc=1))
    except (Exception, Undecidable, Refused) as error:  # VLMEvalKit raises arbitrary exceptions on unusual rows
        failed = blocked_attempt() or ReplayClient.undecidable or f"{type(error).__name__}: {error}"
        return {"result": [], "needs": list(ReplayClient.needs.values()), "failed": failed}
    finally:
        vlmeval.api.OpenAIWrapper, mathv.is_equal = original_client, replaced_is_equal
    failed = blocked_attempt() or ReplayClient.undecidable
    return {"result": records, "needs": list(ReplayClient.needs.values()), "failed": failed}


def _records(result: Any) -> list[Record]:
    """Convert a table, or a dictionary of scores, to records of plain values.

    Raises:
        Unusable: the result is neither.
    """
    if hasattr(result, "to_dict"):
        return [{str(key): _plain(value) for key, value in row.items()} for row in result.to_dict("records")]
    if isinstance(result, dict):
        return [{str(key): _plain(value) for key, value in result.items()}]
    raise Unusable(f"VLMEvalKit's evaluation returned {type(result).__name__}, which is no table")


def _plain(value: Any) -> object:
    """Convert a NumPy scalar or other value to a JSON value; NaN and infinity to None."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
