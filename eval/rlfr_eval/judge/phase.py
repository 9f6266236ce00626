"""The judging phase of a run: estimate its cost, ask the judge about undecided answers, record what it cost."""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.judge.stored import Decide, judge_rows
from rlfr_eval.progress import answer_bar
from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import JudgeSpending, Sample, Selections
from rlfr_eval.score.verdicts import BATCH, standings, undecided_answers
from rlfr_vlm.env_settings import Settings
from rlfr_vlm.errors import printable
from rlfr_vlm.judging.budget import Budget
from rlfr_vlm.judging.choice import JudgeChoice
from rlfr_vlm.judging.client import Judge, JudgeResult, tokens_at_most
from rlfr_vlm.judging.known_cases import KnownCases
from rlfr_vlm.judging.replies import JudgeReason
from rlfr_vlm.judging.session import JudgeOptions, judge_session, local_identity, may_be, named_identity

if TYPE_CHECKING:
    from rlfr_eval.kinds.kind import Kind

ASSUMED = "?" * 1000  # stands for an answer that is not there yet, where costs are estimated


@dataclass
class JudgingReport:
    """Outcome of the phase.

    Attributes:
        identity: of the judge; None when no judge was asked.
        asked: number of answers that were judged.
        cached: number of verdicts from the cache.
        outcomes: number of answers by verdict, or by reason where undecided.
        gone: why the judge was given up; "" when it was not.
        failure: the first failure.
    """

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

    def add(self, result: JudgeResult) -> None:
        self.asked += 1
        if result.reason.startswith(JudgeReason.FAILED):
            self.failure = self.failure or result.reply
        self.cached += result.usage.cached
        self.outcomes[result.reason or result.verdict.value] += 1

    def line(self) -> str:
        outcomes = ", ".join(f"{count} {name}" for name, count in self.outcomes.most_common())
        return (
            f"judge {self.identity}: {self.asked} answers ({self.cached} from the cache): {outcomes}; "
            f"{self.input_tokens + self.output_tokens} tokens with the known cases, {self.usd:.4f} USD"
            + (f"; the first failure: {printable(self.failure[:300])}" if self.failure else "")
        )


@dataclass(frozen=True)
class CheckedJudge:
    """A running judge that passed its check.

    Attributes:
        budget: with the tokens of the check.
    """

    identity: str
    budget: Budget


def expected_cost(
    store: RunStore, selections: Selections, settings: Settings, kind: "Kind", choice: JudgeChoice | None
) -> str:
    """Number of stored answers that a judge would be asked about, and the cost at most, in one line.

    Verdicts that are there count, if the judge that gave them can be the chosen one.
    """
    count = ungraded = requests = inputs = 0
    recorded = {name: identity for name, identity in store.run.get("judges", {}).items() if identity}
    same = {name: identity for name, identity in recorded.items() if choice and may_be(choice, identity)}
    standing = standings(store, selections, same)
    judged = sum(place.judged for place in standing.values())
    samples = undecided_answers(store, selections, standing, ungraded=True)
    while batch := list(islice(samples, BATCH)):
        count += len(batch)
        ungraded += sum(sample.id not in standing for sample in batch)
        for messages in kind.prompts(selections, batch):
            requests += 1
            inputs += tokens_at_most(messages)
    ungraded_part = f" ({ungraded} of them not graded by rules yet)" if ungraded else ""
    requests_part = f", {requests} requests" if requests != count else ""
    judged_part = f" ({judged} are judged)" if judged else ""
    return (
        f"{count} answers for the judge{judged_part}{ungraded_part}{requests_part}; "
        f"{cost_line(inputs, requests, settings)}"
    )


def imagined_cost(selections: Selections, settings: Settings, kind: "Kind") -> str:
    """The same before there are answers, as if rules could decide none, in one line."""
    samples = _imagined_samples(selections)
    count = requests = inputs = 0
    while batch := list(islice(samples, BATCH)):
        count += len(batch)
        for messages in kind.prompts(selections, batch):
            requests += 1
            inputs += tokens_at_most(messages)
    requests_part = f" ({requests} requests)" if requests != count else ""
    return (
        f"{count} answers{requests_part} if rules decided none; with answers of {len(ASSUMED)} characters "
        f"{cost_line(inputs, requests, settings)}"
    )


def _imagined_samples(selections: Selections) -> Iterator[Sample]:
    """An answer of assumed length for each planned sample that a judge may be asked about."""
    for name, selection in selections.items():
        if selection.benchmark.judge == "undecided":
            for problem in selection.problems:
                for number in range(selection.benchmark.sampling.samples):
                    sample_id = f"{name}/{problem.id}/{number}"
                    yield Sample(
                        sample_id,
                        name,
                        problem.id,
                        number,
                        "",
                        ASSUMED,
                        "",
                        ASSUMED,
                        "",
                        "stop",
                        None,
                        None,
                        0.0,
                        1,
                        "",
                        0,
                        0.0,
                    )


async def check_first(
    choice: JudgeChoice, settings: Settings, folder: Path, options: JudgeOptions, cases: KnownCases | None = None
) -> "CheckedJudge":
    """Reach a running judge and check it with the known cases, before the model is asked.

    Raises:
        UserError: the judge cannot be reached, or fails the check.
    """
    async with judge_session(choice, settings, folder, options, cases=cases) as judge:
        return CheckedJudge(judge.identity, judge.budget)


def cost_line(input_tokens: int, requests: int, settings: Settings) -> str:
    """The most tokens and dollars that requests can take."""
    outputs = requests * int(settings.number("JUDGE_MAX_TOKENS", 1))
    price = (
        input_tokens * settings.number("JUDGE_PRICE_INPUT") + outputs * settings.number("JUDGE_PRICE_OUTPUT")
    ) / 1e6
    return f"at most {input_tokens + outputs} tokens, {price:.2f} USD at the prices in the settings"


def judge_undecided(
    store: RunStore,
    selections: Selections,
    kind: "Kind",
    choice: JudgeChoice | None,
    settings: Settings,
    options: JudgeOptions,
    *,
    checked: CheckedJudge | None = None,
) -> JudgingReport:
    """Ask the judge about every answer that rules and this judge have left undecided so far.

    The judge is not started when there is none. Judge and cost are added to run.json.

    Args:
        checked: the judge after the check with known cases; None: check it now.
    """
    report = JudgingReport()
    names = list(selections)
    if choice is None:
        _record_judge(store, selections, None)
        return report
    known = local_identity(choice) if choice.local else checked.identity if checked else None
    standing = standings(store, selections, dict.fromkeys(names, known))
    if next(undecided_answers(store, selections, standing), None) is None:
        _record_judge(store, selections, known or named_identity(choice))
        return report
    session = judge_session(
        choice,
        settings,
        store.folder,
        options,
        check=checked is None,
        budget=checked.budget if checked else None,
        cases=kind.known_cases(selections),
    )
    asyncio.run(_judge(store, selections, session, report, kind.decide(selections)))
    spending: JudgeSpending = {
        "judge": report.identity,
        "input_tokens": report.input_tokens,
        "output_tokens": report.output_tokens,
        "usd": report.usd,
    }
    _record_judge(store, selections, report.identity)
    store.save_run({"judge_spent": [*store.run.get("judge_spent", []), spending]})
    print(report.line(), file=sys.stderr)
    if report.gone:
        print(f"the judge is gone: {report.gone}", file=sys.stderr)
    return report


def _record_judge(store: RunStore, selections: Selections, identity: str | None) -> None:
    """Record the judge in force for each benchmark that allows one; None for rules alone."""
    judges = {name: identity if one.benchmark.judge == "undecided" else None for name, one in selections.items()}
    store.save_run({"judges": {**store.run.get("judges", {}), **judges}})


async def _judge(
    store: RunStore,
    selections: Selections,
    session: AbstractAsyncContextManager[Judge],
    report: JudgingReport,
    decide: Decide,
) -> None:
    async with session as judge:
        report.identity = judge.identity
        standing = standings(store, selections, dict.fromkeys(selections, judge.identity))
        total = sum(1 for _ in undecided_answers(store, selections, standing))
        with answer_bar(total, "judging") as progress:

            def on_judged(result: JudgeResult) -> None:
                report.add(result)
                progress.update()

            samples = undecided_answers(store, selections, standing)
            await judge_rows(judge, samples, decide, store, on_judged)
        budget = judge.budget  # includes the known cases
        report.input_tokens, report.output_tokens, report.usd = budget.input_tokens, budget.output_tokens, budget.spent
        report.gone = judge.unavailable
