"""VLMEvalKit's own evaluation of a whole data set, with what is known instead of its judge."""

import math
import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlfr_eval.vlmeval.worker.guard import Refused, forget, tried
from rlfr_eval.vlmeval.worker.stand_ins import Unsure, key_of
from rlfr_eval.vlmeval.worker.tables import Table, Unusable

JUDGE = "judge"  # a name without a slash: VLMEvalKit makes file names of it
FAILED = "Failed to obtain answer via API."


UPSTREAM: dict[str, Any] = {}  # functions of VLMEvalKit that are replaced for scoring row by row


class StandIn:
    """In the place of VLMEvalKit's judge client. A prompt whose reply is not known is noted, and fails."""

    given: Mapping[str, Any] = {}
    needs: dict[str, dict[str, Any]] = {}  # noqa: RUF012
    unsure = ""  # why the result is none, whatever VLMEvalKit makes of it

    def __init__(self, model: str, **options: Any) -> None:
        self.system_prompt = ""

    def working(self) -> bool:
        return True

    def generate(self, message: Any, **sampling: Any) -> str:
        texts = message if isinstance(message, list) else [message]
        if any(isinstance(part, dict) and part.get("type") != "text" for part in texts):
            StandIn.unsure = "its judge wants to see images, which is not supported here"
            raise Unsure(StandIn.unsure)
        prompt = "\n".join(part["value"] if isinstance(part, dict) else str(part) for part in texts)
        key = key_of(self.system_prompt, prompt)
        if key in self.given:
            return str(self.given[key])
        self.needs[key] = {"key": key, "prompt": prompt, "system": self.system_prompt}
        return FAILED


def no_dice(options: Any) -> str:
    """In the place of `random.choice`, with which VLMEvalKit chooses an option where none is named.

    Raises:
        Unsure: always.
    """
    StandIn.unsure = "no option is named; VLMEvalKit would choose one at random"
    raise Unsure(StandIn.unsure)


def replace_functions() -> None:
    """Put the replacements in place that hold for every way of scoring, and keep what is restored for its own."""
    from vlmeval.dataset.utils import mathv

    UPSTREAM["is_equal"] = mathv.is_equal
    random.choice = no_dice  # type: ignore[assignment]


def own_evaluation(table: Table, predictions: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Run `evaluate` in a folder of its own.

    Args:
        predictions: by id, of all rows that were answered; the others are not there.

    Returns:
        `result`: its table as records, `needs`: what it would still have asked a judge, `failed`: what stopped it.
    """
    import vlmeval.api
    from vlmeval.dataset.utils import mathv

    frame = table.frame[[str(index) in predictions for index in table.frame["index"]]].copy()
    frame["prediction"] = [predictions[str(index)].encode(errors="replace").decode() for index in frame["index"]]
    StandIn.given, StandIn.needs, StandIn.unsure = given, {}, ""
    forget()
    real, vlmeval.api.OpenAIWrapper = vlmeval.api.OpenAIWrapper, StandIn
    os.environ["PRED_FORMAT"] = "tsv"
    replaced, mathv.is_equal = mathv.is_equal, UPSTREAM["is_equal"]
    try:
        with tempfile.TemporaryDirectory(prefix="vlmeval-") as folder:
            path = Path(folder) / f"answers_{table.name}.tsv"
            frame.to_csv(path, sep="\t", index=False)
            records = _records(table.dataset.evaluate(str(path), model=JUDGE, nproc=1))
    except (Exception, Unsure, Refused) as error:  # whatever VLMEvalKit cannot do with these rows
        failed = tried() or StandIn.unsure or f"{type(error).__name__}: {error}"
        return {"result": [], "needs": list(StandIn.needs.values()), "failed": failed}
    finally:
        vlmeval.api.OpenAIWrapper, mathv.is_equal = real, replaced
    return {"result": records, "needs": list(StandIn.needs.values()), "failed": tried() or StandIn.unsure}


def _records(result: Any) -> list[dict[str, Any]]:
    """A table or a dictionary of scores as records of plain values."""
    if hasattr(result, "to_dict"):
        return [{str(key): _plain(value) for key, value in row.items()} for row in result.to_dict("records")]
    if isinstance(result, dict):
        return [{str(key): _plain(value) for key, value in result.items()}]
    raise Unusable(f"VLMEvalKit's evaluation returned {type(result).__name__}, which is no table")


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
