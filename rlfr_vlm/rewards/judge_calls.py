"""Questions of a reward to its judge: asked in the background, waited for, paid within the budget, and logged."""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from rlfr_vlm.env_settings import load_settings
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import cache_folder
from rlfr_vlm.judging.background import BackgroundJudge, Question
from rlfr_vlm.judging.choice import JudgeChoice, choose_judge
from rlfr_vlm.judging.client import JudgeResult
from rlfr_vlm.judging.known_cases import KNOWN_CASES, RUBRIC_CASES, KnownCases, judge_text_case
from rlfr_vlm.judging.replies import JudgeReason
from rlfr_vlm.judging.session import JudgeOptions
from rlfr_vlm.options import RewardOptions

ON_FAILURE = ("stop", "wait")
WAIT_SECONDS = 30.0  # between two tries of a judge that is gone
RESUME = "The last checkpoint can be resumed once it answers."


@dataclass
class Asked:
    """A question to the judge, and what it says."""

    question: Question
    result: "Future[JudgeResult]"


class JudgeCalls:
    """The judge of a reward. It starts, and is checked with known cases, when this object is built.

    Args:
        options: budget, cache, and what happens if the judge is gone.

    Raises:
        UserError: no judge is named, it cannot be reached or fails the check, or an option is invalid.
    """

    def __init__(self, options: RewardOptions) -> None:
        if options.judge_on_failure not in ON_FAILURE:
            near = nearest(options.judge_on_failure, ON_FAILURE)
            raise UserError(
                f"judge_on_failure is {options.judge_on_failure!r}; choose {' or '.join(ON_FAILURE)}.{near}"
            )
        self.on_failure = options.judge_on_failure
        settings = load_settings()
        self.background = BackgroundJudge(
            named_judge(choose_judge(settings)),
            settings,
            cache_folder("judge"),
            JudgeOptions(
                force=options.judge_force,
                budget_tokens=options.judge_budget_tokens or math.inf,
                budget_usd=options.judge_budget_usd or math.inf,
                use_cache=options.judge_cache,
            ),
            KnownCases((*KNOWN_CASES, *RUBRIC_CASES), judge_text_case),
        )
        self._spent = (0, 0.0)

    def ask(self, question: Question) -> Asked:
        """Ask a question while the caller goes on."""
        return Asked(question, self.background.submit(question))

    def results(self, questions: Sequence[Asked]) -> list[JudgeResult]:
        """Wait for what the judge says to each question.

        Raises:
            UserError: the budget is used up, or the judge is gone and `judge_on_failure` is stop.
        """
        while True:
            results = [asked.result.result() for asked in questions]
            if any(result.reason.startswith(JudgeReason.BUDGET) for result in results):
                budget = self.background.judge.budget
                raise UserError(
                    f"The judge's budget is used up ({budget.input_tokens:,} input and {budget.output_tokens:,} "
                    "output tokens). Raise judge_budget_tokens or judge_budget_usd, and resume from the last "
                    "checkpoint."
                )
            if not self.background.unavailable:
                return results
            if self.on_failure == "stop":
                raise UserError(
                    f"The judge is gone: {self.background.unavailable}. {RESUME} judge_on_failure: wait waits."
                )
            print(f"waiting for the judge: {self.background.unavailable}", flush=True)
            time.sleep(WAIT_SECONDS)
            self.background.try_again()
            for asked, result in zip(questions, results, strict=True):
                if result.reason.startswith(JudgeReason.FAILED):
                    asked.result = self.background.submit(asked.question)

    def log(
        self, results: Sequence[JudgeResult], responses: int, log_metric: Callable[[str, float], None] | None
    ) -> None:
        """Log questions for each response, why answers are undecided, and the cost since the last call.

        Args:
            responses: number of responses that were graded, by the judge or without it.
        """
        if log_metric is None:
            return
        log_metric("judge/asked", len(results) / max(responses, 1))
        log_metric("judge/cached", sum(result.usage.cached for result in results) / max(len(results), 1))
        reasons = Counter(result.reason.split(":")[0] for result in results if result.reason)
        for name, reason in vars(JudgeReason).items():
            if name.isupper():
                log_metric(f"judge/{name.lower()}", reasons[reason] / max(responses, 1))
        budget = self.background.judge.budget
        tokens, usd = budget.input_tokens + budget.output_tokens, budget.spent
        log_metric("judge/tokens", tokens - self._spent[0])
        log_metric("judge/usd", usd - self._spent[1])
        self._spent = (tokens, usd)

    def close(self) -> None:
        """Close the connection, and stop a judge that was started here."""
        self.background.close()


def named_judge(choice: JudgeChoice | None) -> JudgeChoice:
    """Return the judge that the settings name.

    Raises:
        UserError: they name none, or one that each of several processes would start.
    """
    if choice is None:
        raise UserError(
            "The reward judge needs a judge, and the settings name none. Set JUDGE_BASE_URL (a server) or LOCAL_LLM "
            "(a model to serve here) in `.env`; `rlfr-eval settings` shows what is set."
        )
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if choice.local and processes > 1:
        raise UserError(
            f"{choice.named_by} serves a judge here, and each of the {processes} training processes would start one. "
            "Serve it once, on devices of its own, and set JUDGE_BASE_URL."
        )
    return choice
