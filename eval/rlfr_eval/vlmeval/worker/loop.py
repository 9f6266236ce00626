"""Read requests from standard input and answer them one by one until it ends."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from rlfr_eval.vlmeval.worker.groups import group_ids, grouping
from rlfr_eval.vlmeval.worker.guard import Refused, blocked_attempt, clear_blocked_attempt, import_vlmeval
from rlfr_eval.vlmeval.worker.probe import probe
from rlfr_eval.vlmeval.worker.replay_judge import Undecidable
from rlfr_eval.vlmeval.worker.row_scores import family, score
from rlfr_eval.vlmeval.worker.tables import Table, Unusable, open_table, rows
from rlfr_eval.vlmeval.worker.upstream_evaluation import evaluate_upstream, replace_functions

if TYPE_CHECKING:
    import pandas

Request = dict[str, Any]  # see the package's docstring
Reply = dict[str, Any]


class Worker:
    """The open data sets; one method per request, which yields the replies."""

    def __init__(self) -> None:
        replace_functions()
        self.tables: dict[str, Table] = {}
        self.positions: dict[str, dict[str, int]] = {}  # data set -> row id -> position in the table

    def hello(self, request: Request) -> Iterator[Reply]:
        from importlib.metadata import version

        names = ("ms-vlmeval", "pandas", "numpy")
        yield {"ok": {name: version(name) for name in names}}

    def sets(self, request: Request) -> Iterator[Reply]:
        import vlmeval.dataset as package

        yield {"ok": [describe(cls) for cls in package.DATASET_CLASSES]}

    def open(self, request: Request) -> Iterator[Reply]:
        name, alias = request["name"], request["called"]
        table = open_table(name, Path(request["file"]), Path(request["images"]))
        table_family, how = family(table), grouping(table)
        questions = group_ids(table, how)
        for row in rows(table, request["groups"]):
            yield {"row": {**row, "group": questions.get(str(row["id"]), "")}}
        self.tables[alias] = table
        self.positions[alias] = {str(index): position for position, index in enumerate(table.frame["index"])}
        count = len(table.frame)
        without_image = table.rows_in_file - count
        yield {"ok": {"family": table_family, "grouping": how, "rows": count, "without_image": without_image}}

    def score(self, request: Request) -> Iterator[Reply]:
        import pandas

        name, outcomes = request["name"], []
        for item in request["items"]:
            if "line" in item:  # a known case for checking a judge, which is in no table
                table, row = empty_table(name), pandas.Series(item["line"])
            else:
                table = self.tables[name]
                row = table.frame.iloc[self.positions[name][item["id"]]]
            outcomes.append(_score_guarded(table, row, item))
        yield {"ok": outcomes}

    def probe(self, request: Request) -> Iterator[Reply]:
        table = self.tables[request["name"]]
        yield {"ok": probe(table, table.frame.iloc[self.positions[request["name"]][request["id"]]])}

    def evaluate(self, request: Request) -> Iterator[Reply]:
        yield {"ok": evaluate_upstream(self.tables[request["name"]], request["predictions"], request["given"])}


def _score_guarded(table: Table, row: "pandas.Series", item: Request) -> Reply:
    """Score an item; undecided after a blocked attempt, also if VLMEvalKit swallowed the exception."""
    clear_blocked_attempt()
    try:
        outcome = score(table, row, item["prediction"], item["given"], item["compare"])
    except Refused:
        outcome = {}
    reason = blocked_attempt()
    return {"verdict": "undecided", "reason": reason, "asked": False} if reason else outcome


def empty_table(name: str) -> Table:
    """Return a table without rows, of VLMEvalKit's class for this name."""
    import vlmeval.dataset as package

    cls = next((cls for cls in package.DATASET_CLASSES if name in cls.supported_datasets()), package.CustomMCQDataset)
    without_init = type(cls.__name__, (cls,), {"__init__": lambda self: None})
    return Table(name, without_init(), Path(), cls is package.CustomMCQDataset, 0)


def describe(cls: Any) -> dict[str, object]:
    """Return a class of data sets as the worker's protocol defines it."""
    from vlmeval.dataset.image_base import ImageBaseDataset

    evaluates = next((one for one in cls.__mro__ if "evaluate" in vars(one)), object)
    functions = [getattr(member, "__func__", member) for member in vars(evaluates).values()]
    return {
        "class": cls.__name__,
        "names": list(cls.supported_datasets()),
        "images": issubclass(cls, ImageBaseDataset),
        "build_judge": any(
            _calls(function.__code__, "build_judge") for function in functions if hasattr(function, "__code__")
        ),
    }


def _calls(code: CodeType, name: str) -> bool:
    """Return whether a function, or one inside it, uses a global name."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return name in code.co_names or any(_calls(one, name) for one in inner)


def answers(worker: Worker, line: str) -> Iterator[Reply]:
    """Yield the replies to one request line; exceptions become an error reply."""
    try:
        request = json.loads(line)
        handle: Callable[[Request], Iterator[Reply]] = getattr(worker, request["do"])
        yield from handle(request)
    except (Unusable, Undecidable, Refused) as error:
        yield {"error": str(error)}
    except (Exception, SystemExit) as error:  # one of VLMEvalKit's sets exits at a row that it does not know
        logging.exception("request failed")
        yield {"error": f"{type(error).__name__}: {error}", "bug": True}


def main(arguments: list[str]) -> None:
    """Serve until standard input ends. Everything that libraries print goes to the log, not between the replies."""
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
