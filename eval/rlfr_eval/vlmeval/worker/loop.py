"""Read requests, answer them one after the other, end with standard input."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlfr_eval.vlmeval.worker.guard import Refused, forget, import_vlmeval, tried
from rlfr_eval.vlmeval.worker.own_evaluation import own_evaluation, replace_functions
from rlfr_eval.vlmeval.worker.row_scores import family, score
from rlfr_eval.vlmeval.worker.stand_ins import Unsure
from rlfr_eval.vlmeval.worker.tables import Table, Unusable, open_table, rows

Reply = dict[str, Any]


class Worker:
    """Open data sets, and what can be asked about them."""

    def __init__(self) -> None:
        replace_functions()
        self.tables: dict[str, Table] = {}
        self.lines: dict[str, dict[str, int]] = {}

    def hello(self, request: dict[str, Any]) -> Iterator[Reply]:
        from importlib.metadata import version

        names = ("ms-vlmeval", "pandas", "numpy")
        yield {"ok": {name: version(name) for name in names}}

    def open(self, request: dict[str, Any]) -> Iterator[Reply]:
        name = request["name"]
        table = open_table(name, Path(request["file"]), Path(request["images"]))
        found = family(table)
        in_file = table.rows_in_file
        for row in rows(table, request["groups"]):
            yield {"row": row}
        self.tables[request["called"]] = table
        self.lines[request["called"]] = {str(index): place for place, index in enumerate(table.frame["index"])}
        yield {"ok": {"family": found, "rows": len(table.frame), "without_image": in_file - len(table.frame)}}

    def score(self, request: dict[str, Any]) -> Iterator[Reply]:
        import pandas

        outcomes = []
        for item in request["items"]:
            if "line" in item:  # a known case of a judge's check: no row of any file
                table, line = item_table(request["name"]), pandas.Series(item["line"])
            else:
                table = self.tables[request["name"]]
                line = table.frame.iloc[self.lines[request["name"]][item["id"]]]
            outcomes.append(_guarded(table, line, item))
        yield {"ok": outcomes}

    def evaluate(self, request: dict[str, Any]) -> Iterator[Reply]:
        yield {"ok": own_evaluation(self.tables[request["name"]], request["predictions"], request["given"])}


def _guarded(table: Table, line: Any, item: dict[str, Any]) -> Reply:
    """An outcome; undecided where VLMEvalKit tried what it must not, also where it then went on as if nothing were."""
    forget()
    try:
        outcome = score(table, line, item["prediction"], item["given"], item["compare"])
    except Refused:
        outcome = {}
    return {"verdict": "undecided", "reason": tried(), "asked": False} if tried() else outcome


def item_table(name: str) -> Table:
    """A table without rows, of the class that VLMEvalKit has for a name."""
    import vlmeval.dataset as package

    cls = next((cls for cls in package.DATASET_CLASSES if name in cls.supported_datasets()), package.CustomMCQDataset)
    own = type(cls.__name__, (cls,), {"__init__": lambda self: None})
    return Table(name, own(), Path(), cls is package.CustomMCQDataset, 0)


def answers(worker: Worker, line: str) -> Iterator[Reply]:
    """Replies to one request; what fails becomes an error."""
    try:
        request = json.loads(line)
        what: Callable[[dict[str, Any]], Iterator[Reply]] = getattr(worker, request["do"])
        yield from what(request)
    except (Unusable, Unsure, Refused) as error:
        yield {"error": str(error)}
    except Exception as error:
        logging.exception("request failed")
        yield {"error": f"{type(error).__name__}: {error}", "bug": True}


def main(arguments: list[str]) -> None:
    """Serve until standard input ends. What anything prints goes to the log, never between the replies."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        import_vlmeval(arguments[0] if arguments else "")
    except ImportError as error:
        print(json.dumps({"error": f"VLMEvalKit does not import: {error}"}), file=replies, flush=True)
        return
    logging.getLogger("vlmeval").setLevel(logging.ERROR)
    worker = Worker()
    for line in sys.stdin:
        for reply in answers(worker, line):
            print(json.dumps(reply), file=replies)
        replies.flush()
