"""The judging phase of a run: who is asked, how far the budget goes, what it cost."""

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_eval.judge.budget import Budget
from rlfr_eval.judge.choice import JudgeChoice
from rlfr_eval.judge.judge import CHARACTERS_PER_TOKEN, Judgement, prediction_of
from rlfr_eval.judge.prompt import JudgeReason, judge_messages
from rlfr_eval.judge.session import JudgeOptions, judge_session
from rlfr_eval.progress import bar
from rlfr_eval.settings import Settings
from rlfr_eval.store import RunStore
from rlfr_eval.verdicts import Chosen, standings, undecided_answers


@dataclass
class JudgingReport:
    """What the phase did. `identity` is the judge's, None when nobody was asked."""

    identity: str | None = None
    asked: int = 0
    cached: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    gone: str = ""

    @property
    def unfinished(self) -> int:
        """Answers that another call could still decide: the judge failed, or the budget was used up."""
        return bool(self.gone) + sum(
            count
            for reason, count in self.outcomes.items()
            if reason.startswith((JudgeReason.FAILED, JudgeReason.BUDGET))
        )

    def add(self, judgement: Judgement) -> None:
        self.asked += 1
        self.cached += judgement.cached
        self.outcomes[judgement.reason or judgement.verdict.value] += 1

    def line(self) -> str:
        outcomes = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        return (
            f"judge {self.identity}: {self.asked} answers ({self.cached} from the cache): {outcomes}; "
            f"{self.input_tokens + self.output_tokens} tokens, {self.usd:.4f} USD"
        )


def problems_by_id(chosen: Chosen) -> dict[tuple[str, str], Any]:
    """(benchmark, problem id) -> problem."""
    return {(name, problem.id): problem for name, (_, problems) in chosen.items() for problem in problems}


def expected_cost(store: RunStore, chosen: Chosen, settings: Settings) -> str:
    """How many answers a judge would be asked about, and what that costs at most, in one line."""
    problems, inputs, count = problems_by_id(chosen), 0, 0
    for row in undecided_answers(store, chosen, standings(store, None)):
        problem = problems.get((row["benchmark"], row["problem"]))
        if problem is not None:
            count += 1
            messages = judge_messages(problem.question, problem.golds, prediction_of(row))
            inputs += int(sum(len(message["content"]) for message in messages) / CHARACTERS_PER_TOKEN)
    return f"{count} answers for the judge; {cost_line(inputs, count, settings)}"


async def check_first(choice: JudgeChoice, settings: Settings, folder: Path, options: JudgeOptions) -> Budget:
    """Reach a judge that runs and put the known cases to it, before a model is asked. Returns what is left.

    Raises:
        UserError: it cannot be reached, or is not fit.
    """
    async with judge_session(choice, settings, folder, options) as judge:
        return judge.budget


def cost_line(input_tokens: int, requests: int, settings: Settings) -> str:
    """At most so many tokens and dollars."""
    outputs = requests * int(settings.number("JUDGE_MAX_TOKENS", 1))
    price = (
        input_tokens * settings.number("JUDGE_PRICE_INPUT") + outputs * settings.number("JUDGE_PRICE_OUTPUT")
    ) / 1e6
    return f"at most {input_tokens + outputs} tokens, {price:.2f} USD at the prices in the settings"


def judge_undecided(
    store: RunStore,
    chosen: Chosen,
    choice: JudgeChoice | None,
    settings: Settings,
    options: JudgeOptions,
    *,
    checked: Budget | None = None,
) -> JudgingReport:
    """Ask the judge about every answer that rules and this judge have left undecided so far.

    The judge is not even started when there is none. What it cost goes into run.json.

    Args:
        checked: what is left after the known cases were put to it; without it they are put to it now.
    """
    report = JudgingReport()
    if choice is None or next(undecided_answers(store, chosen, standings(store, None)), None) is None:
        return report
    asyncio.run(_judge(store, chosen, choice, settings, options, report, checked))
    spent = {"judge": report.identity, "input_tokens": report.input_tokens, "output_tokens": report.output_tokens,
             "usd": report.usd}  # fmt: skip
    store.save_run(judge=report.identity, judge_spent=[*store.run.get("judge_spent", []), spent])
    print(report.line(), file=sys.stderr)
    if report.gone:
        print(f"the judge is gone: {report.gone}", file=sys.stderr)
    return report


async def _judge(
    store: RunStore,
    chosen: Chosen,
    choice: JudgeChoice,
    settings: Settings,
    options: JudgeOptions,
    report: JudgingReport,
    checked: Budget | None,
) -> None:
    start = judge_session(choice, settings, store.folder, options, check=checked is None, budget=checked)
    async with start as judge:
        report.identity = judge.identity
        standing = standings(store, judge.identity)
        total = sum(1 for _ in undecided_answers(store, chosen, standing))
        with bar(total, "judging") as shown:

            def on_judged(judgement: Judgement) -> None:
                report.add(judgement)
                shown.update()

            rows = undecided_answers(store, chosen, standing)
            await judge.judge_rows(rows, problems_by_id(chosen), store, on_judged)
        budget = judge.budget  # with what the known cases took
        report.input_tokens, report.output_tokens, report.usd = budget.input_tokens, budget.output_tokens, budget.spent
        report.gone = judge.gone
