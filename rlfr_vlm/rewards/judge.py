"""Reward from a judge: a language model behind a server that the settings of `.env` name, as for `rlfr-eval`.

Rows with a column `rubric` ask the judge whether the response meets these criteria. Other rows are graded by rules,
and the judge is asked where they leave the answer undecided. Right is 1, wrong 0, and undecided None, which is masked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Gold, Grade, GradingPool, Item, Verdict, gold_list, grade_many
from rlfr_vlm.grading.extract import remove_reasoning
from rlfr_vlm.judging.background import Question
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.accuracy import SCORES
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text, prompt_text
from rlfr_vlm.rewards.judge_calls import Asked, JudgeCalls


@dataclass
class Judgement:
    """The reward of one response, on its way.

    Attributes:
        score: by rules; None where the judge is asked.
        asked: the judge; None where rules decided.
    """

    score: float | None = None
    asked: Asked | None = None


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
        self.options, self.pool = options, pool
        self.calls = JudgeCalls(options)
        self._begun: tuple[list[str], list[Judgement]] | None = None

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
                judgements.append(Judgement(asked=self.calls.ask(_by_rubric(task, criteria, gold, text))))
            else:
                judgements.append(self._by_rules(task, gold, next(grades)))
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
        results = self.calls.results([one.asked for one in judgements if one.asked is not None])
        self.calls.log(results, len(judgements), log_metric)
        said = iter(results)
        return [one.score if one.asked is None else SCORES[next(said).verdict] for one in judgements]

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
        return Judgement(asked=self.calls.ask(lambda judge: judge.judge(task, golds, prediction)))


def _by_rubric(task: str, rubric: str, gold: Gold, response: str) -> Question:
    visible, golds = remove_reasoning(response)[0].strip(), [] if gold is None else gold_list(gold)
    return lambda judge: judge.judge_by_rubric(task, rubric, golds, visible)
