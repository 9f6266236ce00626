"""The judging phase of a run: who is asked, how far the budget goes, what it cost."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rlfr_eval.judge.budget import Budget
from rlfr_eval.judge.choice import JudgeChoice
from rlfr_eval.judge.client import Decide, Judge, JudgeResult, prediction_of, tokens_at_most
from rlfr_eval.judge.known_cases import KnownCases
from rlfr_eval.judge.prompt import judge_messages
from rlfr_eval.judge.replies import JudgeReason
from rlfr_eval.judge.session import JudgeOptions, judge_session, local_identity
from rlfr_eval.progress import answer_bar
from rlfr_eval.run.folder import RunStore
from rlfr_eval.score.verdicts import BATCH, Chosen, standings, undecided_answers
from rlfr_eval.settings import Settings
from rlfr_vlm.errors import printable

ASSUMED = "?" * 1000  # stands for an answer that is not there yet, where costs are estimated
# of some answers: the conversations in which a judge would be asked about them
Prompts = Callable[[list[dict[str, Any]]], Iterator[list[dict[str, Any]]]]


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
    failure: str = ""

    @property
    def unfinished(self) -> int:
        """Answers that another call could still decide: the judge failed, or the budget was used up."""
        return bool(self.gone) + sum(
            count
            for reason, count in self.outcomes.items()
            if reason.startswith((JudgeReason.FAILED, JudgeReason.BUDGET))
        )

    def add(self, judgement: JudgeResult) -> None:
        self.asked += 1
        if judgement.reason.startswith(JudgeReason.FAILED):
            self.failure = self.failure or judgement.reply
        self.cached += judgement.usage.cached
        self.outcomes[judgement.reason or judgement.verdict.value] += 1

    def line(self) -> str:
        outcomes = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        return (
            f"judge {self.identity}: {self.asked} answers ({self.cached} from the cache): {outcomes}; "
            f"{self.input_tokens + self.output_tokens} tokens with the known cases, {self.usd:.4f} USD"
            + (f"; the first failure: {printable(self.failure[:300])}" if self.failure else "")
        )


def problems_by_id(chosen: Chosen) -> dict[tuple[str, str], Any]:
    """(benchmark, problem id) -> problem."""
    return {(name, problem.id): problem for name, (_, problems) in chosen.items() for problem in problems}


def expected_cost(store: RunStore, chosen: Chosen, settings: Settings, prompts: Prompts) -> str:
    """How many answers a judge would be asked about, and what that costs at most, in one line."""
    count = ungraded = requests = inputs = 0
    standing = standings(store, chosen, {})
    rows = undecided_answers(store, chosen, standing, ungraded=True)
    while batch := list(islice(rows, BATCH)):
        count += len(batch)
        ungraded += sum(row["id"] not in standing for row in batch)
        for messages in prompts(batch):
            requests += 1
            inputs += tokens_at_most(messages)
    rest = f" ({ungraded} of them not graded by rules yet)" if ungraded else ""
    more = f", {requests} requests" if requests != count else ""
    return f"{count} answers for the judge{rest}{more}; {cost_line(inputs, requests, settings)}"


def imagined_cost(chosen: Chosen, settings: Settings, prompts: Prompts) -> str:
    """The same before there are answers, as if rules could decide none, in one line."""
    rows = (
        {"benchmark": name, "problem": problem.id, "raw": ASSUMED, "extracted": ASSUMED}
        for name, (benchmark, problems) in chosen.items()
        if benchmark.judge == "undecided"
        for problem in problems
        for _ in range(benchmark.sampling.samples)
    )
    count = requests = inputs = 0
    while batch := list(islice(rows, BATCH)):
        count += len(batch)
        for messages in prompts(batch):
            requests += 1
            inputs += tokens_at_most(messages)
    more = f" ({requests} requests)" if requests != count else ""
    return (
        f"{count} answers{more} if rules decided none; with answers of {len(ASSUMED)} characters "
        f"{cost_line(inputs, requests, settings)}"
    )


def compare_prompts(chosen: Chosen) -> Prompts:
    """What `compare_answers` asks."""
    problems = problems_by_id(chosen)

    def prompts(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        for row in rows:
            problem = problems[row["benchmark"], row["problem"]]
            yield judge_messages(problem.question, problem.golds, prediction_of(row))

    return prompts


def compare_answers(chosen: Chosen) -> Decide:
    """Show the judge question, golds and what was extracted of an answer."""
    problems = problems_by_id(chosen)

    async def decide(judge: Judge, row: dict[str, Any]) -> JudgeResult:
        problem = problems[row["benchmark"], row["problem"]]
        return await judge.judge(problem.question, problem.golds, prediction_of(row))

    return decide


async def check_first(
    choice: JudgeChoice, settings: Settings, folder: Path, options: JudgeOptions, cases: KnownCases | None = None
) -> Budget:
    """Reach a judge that runs and put the known cases to it, before a model is asked. Returns what is left.

    Raises:
        UserError: it cannot be reached, or is not fit.
    """
    async with judge_session(choice, settings, folder, options, cases=cases) as judge:
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
    decide: Decide | None = None,
    cases: KnownCases | None = None,
) -> JudgingReport:
    """Ask the judge about every answer that rules and this judge have left undecided so far.

    The judge is not even started when there is none. What it cost goes into run.json.

    Args:
        checked: what is left after the known cases were put to it; without it they are put to it now.
        decide: how a judge decides an answer; by default it is shown question, golds and what was extracted.
        cases: known cases, instead of the common ones.
    """
    report = JudgingReport()
    if choice is None:
        store.save_run(judges={**store.run.get("judges", {}), **dict.fromkeys(chosen)})
        return report
    known = local_identity(choice) if choice.local else None
    if next(undecided_answers(store, chosen, standings(store, chosen, dict.fromkeys(chosen, known))), None) is None:
        return report
    start = judge_session(choice, settings, store.folder, options, check=checked is None, budget=checked, cases=cases)
    asyncio.run(_judge(store, chosen, start, report, decide or compare_answers(chosen)))
    spent = {"judge": report.identity, "input_tokens": report.input_tokens, "output_tokens": report.output_tokens,
             "usd": report.usd}  # fmt: skip
    judges = {**store.run.get("judges", {}), **dict.fromkeys(chosen, report.identity)}
    store.save_run(judges=judges, judge_spent=[*store.run.get("judge_spent", []), spent])
    print(report.line(), file=sys.stderr)
    if report.gone:
        print(f"the judge is gone: {report.gone}", file=sys.stderr)
    return report


async def _judge(
    store: RunStore,
    chosen: Chosen,
    start: AbstractAsyncContextManager[Judge],
    report: JudgingReport,
    decide: Decide,
) -> None:
    async with start as judge:
        report.identity = judge.identity
        standing = standings(store, chosen, dict.fromkeys(chosen, judge.identity))
        total = sum(1 for _ in undecided_answers(store, chosen, standing))
        with answer_bar(total, "judging") as shown:

            def on_judged(judgement: JudgeResult) -> None:
                report.add(judgement)
                shown.update()

            rows = undecided_answers(store, chosen, standing)
            await judge.judge_rows(rows, decide, store, on_judged)
        budget = judge.budget  # with what the known cases took
        report.input_tokens, report.output_tokens, report.usd = budget.input_tokens, budget.output_tokens, budget.spent
        report.gone = judge.unavailable
