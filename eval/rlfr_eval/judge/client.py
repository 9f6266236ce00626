"""Ask the judge: from the cache, within the budget, and whatever goes wrong is undecided with its reason."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rlfr_eval.concurrency import together
from rlfr_eval.judge.budget import Budget
from rlfr_eval.judge.cache import VerdictCache
from rlfr_eval.judge.prompt import JudgeReason, judge_messages, read_verdict
from rlfr_eval.model.answering import GIVE_UP
from rlfr_eval.model.endpoint import TOO_LONG, Endpoint, Fault
from rlfr_eval.run.folder import RunStore
from rlfr_vlm.grading import Verdict
from rlfr_vlm.grading.extract import remove_reasoning

BYTES_PER_TOKEN = 2  # on the safe side for text, mathematics and other scripts; usage settles
UNPAID = ("connection", "rate limit", "server error", "refused", TOO_LONG)


class OverBudget(Exception):
    """Another try could pass the limit."""


class Reading(NamedTuple):
    """What was read from a reply; None when nothing can be trusted, and why."""

    value: str | None
    reason: str = ""


@dataclass(frozen=True)
class Said:
    """A judge's reply and what was read from it."""

    value: str | None
    reason: str
    reply: str
    cached: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """What a judge said of one answer.

    Attributes:
        given: what was read from its replies, where it is asked several things.
        reader: version of what read them, where verdicts hang on it.
    """

    verdict: Verdict
    reason: str
    reply: str
    cached: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    given: Mapping[str, str] = field(default_factory=dict)
    reader: str = ""


@dataclass
class Judge:
    """A judge that answers.

    Attributes:
        identity: of the model that is served; a verdict of another one never stands for it.
        cache: None asks anew and keeps nothing.
    """

    endpoint: Endpoint
    identity: str
    budget: Budget = field(default_factory=Budget)
    cache: VerdictCache | None = None
    max_tokens: int = 1024
    concurrency: int = 16
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    gone: str = ""

    async def judge(self, question: str, golds: Sequence[str], prediction: str) -> Judgement:
        """One verdict. Never raises for what a judge can do wrong.

        Raises:
            UserError: the server refuses the key, or does not know the model.
        """

        def read(reply: str, finish_reason: str) -> Reading:
            decision = read_verdict(reply, finish_reason, question, golds, prediction)
            decided = decision.verdict is not Verdict.UNDECIDED
            return Reading(decision.verdict.value if decided else None, decision.reason)

        said = await self.ask(judge_messages(question, golds, prediction), read)
        return Judgement(
            Verdict.UNDECIDED if said.value is None else Verdict(said.value), said.reason, said.reply, said.cached,
            said.input_tokens, said.output_tokens, said.seconds,
        )  # fmt: skip

    async def ask(self, messages: list[dict[str, Any]], read: Callable[[str, str], Reading]) -> Said:
        """One reply, from the cache or within the budget, and what `read` makes of it.

        Args:
            read: gets the reply and its finish reason.
        """
        messages = [{**one, "content": sendable(one["content"])} for one in messages]
        body = {"messages": messages, "temperature": 0.0, "max_tokens": self.max_tokens, "seed": 0,
                "extra_body": dict(self.extra_body) or None}  # fmt: skip
        key = VerdictCache.key(self.identity, body)
        if self.cache is not None and (kept := self.cache.get(key)):
            reading = read(kept[1], "stop")  # by today's reader; a reply that was cut off is not kept
            return Said(reading.value, reading.reason, kept[1], cached=True)
        reserved = (tokens_at_most(messages), self.max_tokens)
        if not self.budget.reserve(*reserved):
            return Said(None, JudgeReason.BUDGET, "")
        used = (0, 0)

        def on_fault(fault: Fault) -> None:
            nonlocal used
            if fault.kind in UNPAID:
                return
            # what was written and thrown away may still be on the bill, and so may the next try
            used = (used[0] + reserved[0], used[1] + reserved[1])
            if not self.budget.reserve(*reserved):
                raise OverBudget
            held.append(reserved)

        held = [reserved]
        try:
            reply = await self.endpoint.ask(body, on_fault)
            # a server that does not count is charged with the estimate
            used = (
                used[0] + (reserved[0] if reply.prompt_tokens is None else reply.prompt_tokens),
                used[1] + (reserved[1] if reply.completion_tokens is None else reply.completion_tokens),
            )
        except Fault as fault:
            return Said(None, f"{JudgeReason.FAILED}: {fault.kind}", str(fault))
        except OverBudget:
            return Said(None, JudgeReason.BUDGET, "")
        finally:
            self.budget.settle((sum(one[0] for one in held), sum(one[1] for one in held)), used)
        reading = read(reply.text, reply.finish_reason)
        if self.cache is not None and reading.value is not None:
            self.cache.put(key, self.identity, reading.value, reply.text)
        return Said(reading.value, reading.reason, reply.text, False, *used, reply.seconds)

    async def judge_rows(
        self,
        rows: Iterator[dict[str, Any]],
        decide: "Decide",
        store: RunStore,
        on_judged: Callable[[Judgement], None] = lambda judgement: None,
    ) -> None:
        """Judge answers, a bounded number at a time; each verdict is stored when it arrives.

        A judge that fails many times in a row is given up: `gone` says why, and the rest is not asked in vain.
        """
        in_a_row = 0

        async def work() -> None:
            nonlocal in_a_row
            for row in rows:
                if self.gone:
                    return
                judgement = await decide(self, row)
                store.verdicts.append(verdict_row(row, self.identity, judgement))
                on_judged(judgement)
                in_a_row = in_a_row + 1 if judgement.reason.startswith(JudgeReason.FAILED) else 0
                if in_a_row >= max(GIVE_UP, self.concurrency):
                    self.gone = f"{in_a_row} answers in a row could not be judged; the last: {judgement.reply}"

        await together(work() for _ in range(self.concurrency))


Decide = Callable[[Judge, dict[str, Any]], Awaitable[Judgement]]


def sendable(text: str) -> str:
    """Text that can be encoded: what a model says may hold half a character."""
    return text.encode(errors="replace").decode()


def tokens_at_most(messages: Sequence[Mapping[str, Any]]) -> int:
    """More tokens than the messages will have, without knowing the tokenizer."""
    return sum(len(message["content"].encode(errors="replace")) for message in messages) // BYTES_PER_TOKEN


def prediction_of(row: Mapping[str, Any]) -> str:
    """What the judge sees of an answer: what was extracted, else the end of what is visible."""
    if row["extracted"]:
        return row["extracted"]
    return row.get("visible", remove_reasoning(row["raw"])[0]).strip()


def verdict_row(row: Mapping[str, Any], identity: str, judgement: Judgement) -> dict[str, Any]:
    """The line that is kept of a verdict on an answer."""
    return {
        "id": row["id"],
        "by": "judge",
        "answer": row["digest"],
        "judge": identity,
        "verdict": judgement.verdict.value,
        "reason": judgement.reason,
        "reply": judgement.reply,
        "cached": judgement.cached,
        "input_tokens": judgement.input_tokens,
        "output_tokens": judgement.output_tokens,
        **({"given": dict(judgement.given)} if judgement.given else {}),
        **({"reader": judgement.reader} if judgement.reader else {}),
        "time": round(time.time(), 3),
    }
