"""Reward from a judge: a language model behind a server that the settings of `.env` name, as for `rlfr-eval`.

Rows with a column `rubric` ask the judge whether the response meets these criteria. Other rows are graded by rules,
and the judge is asked where they leave the answer undecided. Right is 1, wrong 0, and undecided None, which is masked.
"""

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
from rlfr_vlm.grading import Gold, Grade, GradingPool, Item, Verdict, gold_list, grade_many
from rlfr_vlm.grading.extract import remove_reasoning
from rlfr_vlm.judging.background import BackgroundJudge, Question
from rlfr_vlm.judging.choice import JudgeChoice, choose_judge
from rlfr_vlm.judging.client import JudgeResult
from rlfr_vlm.judging.replies import JudgeReason
from rlfr_vlm.judging.session import JudgeOptions
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.accuracy import SCORES
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text, prompt_text

ON_FAILURE = ("stop", "wait")
WAIT_SECONDS = 30.0  # between two tries of a judge that is gone
RESUME = "The last checkpoint can be resumed once it answers."


@dataclass
class Judgement:
    """The reward of one response, on its way.

    Attributes:
        score: by rules; None where the judge is asked.
        question: asks the judge; None where rules decided.
        result: what the judge says.
    """

    score: float | None = None
    question: Question | None = None
    result: "Future[JudgeResult] | None" = None


class JudgeReward:
    """The reward function. The judge starts, and is checked with known cases, when the reward is built.

    Args:
        options: budget, cache, and what happens if the judge is gone.
        pool: grading processes; by default the shared ones of this process.

    Raises:
        UserError: no judge is named, it cannot be reached or fails the check, or an option is invalid.
    """

    def __init__(self, options: RewardOptions, pool: GradingPool | None = None) -> None:
        self.__name__ = "judge"
        if options.judge_on_failure not in ON_FAILURE:
            near = nearest(options.judge_on_failure, ON_FAILURE)
            raise UserError(
                f"judge_on_failure is {options.judge_on_failure!r}; choose {' or '.join(ON_FAILURE)}.{near}"
            )
        self.options, self.pool = options, pool
        settings = load_settings()
        self.judge = BackgroundJudge(
            named_judge(choose_judge(settings)),
            settings,
            cache_folder("judge"),
            JudgeOptions(
                force=options.judge_force,
                budget_tokens=options.judge_budget_tokens or math.inf,
                budget_usd=options.judge_budget_usd or math.inf,
                use_cache=options.judge_cache,
            ),
        )
        self._begun: tuple[list[str], list[Judgement]] | None = None
        self._spent = (0, 0.0)

    def begin(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        answer: Sequence[Gold] | None = None,
        rubric: Sequence[str | None] | None = None,
        options: Sequence[Sequence[str] | None] | None = None,
        answer_type: Sequence[str | None] | None = None,
        **kwargs: object,
    ) -> None:
        """Ask the judge while the caller goes on; the next call with the same responses takes the results.

        Raises:
            UserError: a row has neither an answer nor a rubric.
        """
        texts = [completion_text(completion) for completion in completions]
        nothing = [None] * len(texts)
        rows = list(
            zip(texts, answer or nothing, rubric or nothing, options or nothing, answer_type or nothing, strict=True)
        )
        if any(gold is None and not criteria for _, gold, criteria, _, _ in rows):
            raise UserError(
                "The reward judge got a row without `answer` and without `rubric`. Add one of the columns to the "
                "data, or choose another reward."
            )
        items = [
            Item(gold, text, None, row_options or (), row_type)
            for text, gold, criteria, row_options, row_type in rows
            if not criteria
        ]
        grades = iter(grade_many(items, tolerance=self.options.grading_tolerance, pool=self.pool))
        judgements = []
        for prompt, (text, gold, criteria, _, _) in zip(prompts, rows, strict=True):
            task = prompt_text(prompt).strip()
            if criteria:
                judgements.append(Judgement(question=_by_rubric(task, criteria, gold, text)))
            else:
                judgements.append(self._by_rules(task, gold, next(grades)))
        self._submit(judgements)
        self._begun = (texts, judgements)

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        log_metric: Callable[[str, float], None] | None = None,
        **kwargs: object,
    ) -> list[float | None]:
        """Return 1, 0 or None of each response.

        Raises:
            UserError: the budget is used up, or the judge is gone and `judge_on_failure` is stop.
        """
        if self._begun is None or self._begun[0] != [completion_text(completion) for completion in completions]:
            self.begin(prompts, completions, **kwargs)  # type: ignore[arg-type]
        assert self._begun is not None
        judgements, self._begun = self._begun[1], None
        results = self._results(judgements)
        self._log(results, log_metric)
        return [
            judgement.score if result is None else SCORES[result.verdict]
            for judgement, result in zip(judgements, results, strict=True)
        ]

    def _by_rules(self, task: str, gold: Gold, grade: Grade) -> Judgement:
        """The verdict of the rules, or a question with the answer that they left undecided."""
        if grade.verdict is not Verdict.UNDECIDED:
            return Judgement(SCORES[grade.verdict])
        prediction = grade.extracted or grade.extraction.visible.strip()
        if not prediction:
            return Judgement(0.0 if self.options.no_answer_is_wrong else None)
        golds = [text for text in gold_list(gold) if text.strip()]
        if not golds:
            return Judgement()
        return Judgement(question=lambda judge: judge.judge(task, golds, prediction))

    def _submit(self, judgements: Sequence[Judgement]) -> None:
        for judgement in judgements:
            if judgement.question is not None:
                judgement.result = self.judge.submit(judgement.question)

    def _results(self, judgements: Sequence[Judgement]) -> list[JudgeResult | None]:
        """What the judge says of each response; None where rules decided."""
        while True:
            results = [judgement.result.result() if judgement.result else None for judgement in judgements]
            if any(result is not None and result.reason.startswith(JudgeReason.BUDGET) for result in results):
                raise UserError(
                    f"The judge's budget is used up ({self.judge.judge.budget.input_tokens:,} input and "
                    f"{self.judge.judge.budget.output_tokens:,} output tokens). Raise judge_budget_tokens or "
                    "judge_budget_usd, and resume from the last checkpoint."
                )
            if not self.judge.unavailable:
                return results
            if self.options.judge_on_failure == "stop":
                raise UserError(f"The judge is gone: {self.judge.unavailable}. {RESUME} judge_on_failure: wait waits.")
            print(f"waiting for the judge: {self.judge.unavailable}", flush=True)
            time.sleep(WAIT_SECONDS)
            self.judge.try_again()
            pairs = zip(judgements, results, strict=True)
            self._submit([one for one, result in pairs if result and result.reason.startswith(JudgeReason.FAILED)])

    def _log(self, results: Sequence[JudgeResult | None], log_metric: Callable[[str, float], None] | None) -> None:
        """Log which share was asked, why answers are undecided, and what it cost since the last call."""
        if log_metric is None:
            return
        asked = [result for result in results if result is not None]
        log_metric("judge/asked", len(asked) / max(len(results), 1))
        log_metric("judge/cached", sum(result.usage.cached for result in asked) / max(len(asked), 1))
        reasons = Counter(result.reason.split(":")[0] for result in asked if result.reason)
        for name, reason in vars(JudgeReason).items():
            if name.isupper():
                log_metric(f"judge/{name.lower()}", reasons[reason] / max(len(results), 1))
        budget = self.judge.judge.budget
        tokens, usd = budget.input_tokens + budget.output_tokens, budget.spent
        log_metric("judge/tokens", tokens - self._spent[0])
        log_metric("judge/usd", usd - self._spent[1])
        self._spent = (tokens, usd)


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


def _by_rubric(task: str, rubric: str, gold: Gold, response: str) -> Question:
    visible, golds = remove_reasoning(response)[0].strip(), [] if gold is None else gold_list(gold)
    return lambda judge: judge.judge_by_rubric(task, rubric, golds, visible)
