"""A judge in a thread of its own, for callers that are not asynchronous: rewards in training."""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from rlfr_vlm.env_settings import Settings
from rlfr_vlm.grading import Verdict
from rlfr_vlm.judging.choice import JudgeChoice
from rlfr_vlm.judging.client import Judge, JudgeResult
from rlfr_vlm.judging.known_cases import KnownCases
from rlfr_vlm.judging.replies import JudgeReason
from rlfr_vlm.judging.session import JudgeOptions, judge_session

T = TypeVar("T")
Question: TypeAlias = Callable[[Judge], Awaitable[JudgeResult]]  # asks a judge about one response


class BackgroundJudge:
    """A judge that answers while the caller goes on. It is checked with the known cases first.

    Args:
        choice: the judge that the settings name.
        settings: of `.env` and environment.
        folder: of the log of a judge that is started here.
        options: budget, cache and whether an unfit judge is used.
        cases: known cases to use instead of those for answers.

    Raises:
        UserError: the judge cannot be started or reached, does not serve the model, or fails the check.
    """

    def __init__(
        self,
        choice: JudgeChoice,
        settings: Settings,
        folder: Path,
        options: JudgeOptions,
        cases: KnownCases | None = None,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()
        self._session = judge_session(choice, settings, folder, options, cases=cases)
        try:
            self.judge = self._wait(self._session.__aenter__())
        except BaseException:
            self._stop()
            raise
        self._slots = asyncio.Semaphore(self.judge.concurrency)
        atexit.register(self.close)

    @property
    def unavailable(self) -> str:
        """Why the judge was given up; "" while it works."""
        return self.judge.unavailable

    def submit(self, question: Question) -> "Future[JudgeResult]":
        """Ask a question, at most `JUDGE_CONCURRENCY` at a time. Errors of the settings come with the result."""
        return asyncio.run_coroutine_threadsafe(self._ask(question), self._loop)

    def try_again(self) -> None:
        """Ask a judge again that was given up."""
        self.judge.forgive()

    def close(self) -> None:
        """Close the connection, and stop a judge that was started here."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._wait(self._session.__aexit__(None, None, None))
            self._stop()

    async def _ask(self, question: Question) -> JudgeResult:
        async with self._slots:
            if self.judge.unavailable:
                return JudgeResult(Verdict.UNDECIDED, f"{JudgeReason.FAILED}: given up", "")
            result = await question(self.judge)
            self.judge.note(result)
            return result

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
