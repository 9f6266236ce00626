"""Scoring server: a process that imports reasoning-gym once, forks workers, and replaces workers that overrun.

It is the server of `rlfr_vlm/grading/worker.py` with another grader: the scorer of an entry's task decides. Answers
are model text, so that nothing in these processes may compile text; `expressions.py` reads what scorers evaluate.
"""

import contextlib
import gc
import logging
import math
import sys
import warnings
from functools import lru_cache
from typing import Any

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.gym.entry import unpack
from rlfr_vlm.grading.gym.expressions import UNREAD, install
from rlfr_vlm.grading.gym.tasks import open_task
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, undecided
from rlfr_vlm.grading.worker import Grader, Request, Server, forbid_evaluation, reply

PATH = "reasoning_gym"
RIGHT_FROM = 1 - 1e-6  # a score of 1, but for rounding
OPENED = 8  # data sets that a worker keeps


class Scorer:
    """Scores answers with the data sets of their tasks."""

    def __init__(self) -> None:
        self._dataset = lru_cache(OPENED)(self._open)

    def _open(self, task: str, options: tuple[tuple[str, str], ...]) -> Any:
        return open_task(task, dict(options), seed=0, size=1)

    def prepare(self, request: Request) -> None:
        """Open the data set of a request's task, which may take longer than scoring an answer."""
        with contextlib.suppress(ValueError, UserError):  # `grade` says so
            self._parts(request)

    def _parts(self, request: Request) -> tuple[Any, dict[str, Any]]:
        task, options, entry = unpack(request.get("entry", ""))
        return self._dataset(task, tuple(sorted(options.items()))), entry

    def grade(self, request: Request) -> Decision:
        """Return the decision on a request's answer."""
        try:
            dataset, entry = self._parts(request)
        except (ValueError, UserError):  # another version of the library, or a damaged file
            return undecided(PATH, Reason.NO_ENTRY)
        return score(dataset, request["answer"], entry)


def score(dataset: Any, answer: str, entry: dict[str, Any]) -> Decision:
    """Return the decision of a data set's scorer: right for a score of 1, wrong below.

    Undecided if the scorer raises or gives no number, or if the answer has notation that is not read and is not right.
    """
    UNREAD.clear()
    try:
        value = dataset.score_answer(answer, entry)
        value = float(value)
    except (Exception, RecursionError):  # any scorer may raise anything
        return undecided(PATH, Reason.SCORER_FAILED)
    if not math.isfinite(value):
        return undecided(PATH, Reason.SCORER_FAILED)
    if value >= RIGHT_FROM:
        return Decision(Verdict.RIGHT, PATH, "", value)
    if UNREAD.found:
        return undecided(PATH, Reason.BAD_ANSWER)
    return Decision(Verdict.WRONG, PATH, "", value)


def main() -> None:
    """Load the library and serve. Command-line arguments: workers, seconds per answer, memory per worker in MB."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr  # the library prints while it is imported, and replies go to stdout
    with contextlib.redirect_stderr(None):
        import reasoning_gym  # noqa: F401

        install()
    forbid_evaluation(UNREAD.note)
    gc.freeze()  # otherwise a collection in a worker copies the memory that it shares with the server
    reply(-1, ["ready", "", ""])
    scorer = Scorer()
    grader = Grader(scorer.grade, scorer.prepare)
    Server(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), grader).run()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent process has already exited
        main()
