"""Ask a judge for verdicts: cache first, within the budget; a failure leaves the answer undecided with a reason."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from rlfr_vlm.files import JsonMapping, JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.judging.budget import Budget
from rlfr_vlm.judging.cache import VerdictCache
from rlfr_vlm.judging.prompt import PAIR_WORDS, WORDS, Messages, judge_messages, pair_messages, rubric_messages
from rlfr_vlm.judging.replies import JudgeReason, ParsedReply, ReplyReader, read_verdict
from rlfr_vlm.servers.concurrency import gather_or_cancel
from rlfr_vlm.servers.endpoint import MAX_FAILURES_IN_A_ROW, TOO_LONG, Endpoint, Fault, Usage

Item = TypeVar("Item")
BYTES_PER_TOKEN = 2  # low for text, mathematics and non-Latin scripts, so that token counts are overestimated
UNBILLED_FAULTS = ("connection", "rate limit", "server error", "refused", "redirect", TOO_LONG)


class BudgetExceeded(Exception):
    """Another try could exceed the budget."""


@dataclass(frozen=True)
class JudgeReply:
    """One reply of a judge with its parsed value.

    Attributes:
        value: the parsed value; None if the reply has none, or if there is no reply.
        reason: why `value` is None.
        text: the raw reply, or the error message of a failed request.
    """

    value: str | None
    reason: str
    text: str
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True)
class JudgeResult:
    """A judge's verdict on one answer.

    Attributes:
        reason: why the verdict is undecided.
        reply: the raw reply, or all of them if the judge was asked several times.
        values: key of a prompt -> parsed reply, if VLMEvalKit's prompts were used.
        reader: version of the reply parser, if it is part of the verdict's key.
        points: share of full marks, where a wrong answer has some; else None.
    """

    verdict: Verdict
    reason: str
    reply: str
    usage: Usage = field(default_factory=Usage)
    values: Mapping[str, str] = field(default_factory=dict)
    reader: str = ""
    points: float | None = None


@dataclass
class Judge:
    """A judge model behind a running server.

    Attributes:
        identity: name of the served model and its weights or server; verdicts of another identity do not count.
        cache: None: ask again every time and store nothing.
        unavailable: why the judge was given up, after many failures in a row; "" while it works.
    """

    endpoint: Endpoint
    identity: str
    budget: Budget = field(default_factory=Budget)
    cache: VerdictCache | None = None
    max_tokens: int = 1024
    concurrency: int = 16
    extra_body: JsonMapping = field(default_factory=dict)
    unavailable: str = ""
    _failures_in_a_row: int = field(default=0, init=False)

    async def judge(self, question: str, golds: Sequence[str], prediction: str) -> JudgeResult:
        """Return the verdict on one answer. Failed requests and unclear replies give `UNDECIDED`, no exception.

        Raises:
            UserError: the server refuses the key, or does not know the model.
        """
        return await self._verdict(judge_messages(question, golds, prediction), question, golds, prediction)

    async def judge_by_rubric(self, task: str, rubric: str, golds: Sequence[str], response: str) -> JudgeResult:
        """Return whether a response meets all criteria of a rubric, as `judge` returns the verdict on an answer.

        Args:
            golds: reference answers, which may be none.
            response: without its reasoning.
        """
        messages = rubric_messages(task, rubric, golds, response)
        return await self._verdict(messages, task, [rubric, *golds], response)

    async def compare(self, task: str, rubric: str, first: str, second: str) -> JudgeResult:
        """Return whether the first of two responses is better: `RIGHT`, or `WRONG` if the second one is.

        Args:
            rubric: criteria; "" without.
            first, second: without their reasoning.
        """
        messages = pair_messages(task, rubric, first, second)
        return await self._verdict(messages, task, [rubric, first], second, PAIR_WORDS)

    async def _verdict(
        self,
        messages: Messages,
        question: str,
        golds: Sequence[str],
        prediction: str,
        words: tuple[str, str] = WORDS,
    ) -> JudgeResult:
        """Ask for a verdict, whose code is made of question, golds and prediction."""

        def read(reply: str, finish_reason: str) -> ParsedReply:
            decision = read_verdict(reply, finish_reason, question, golds, prediction, words)
            decided = decision.verdict is not Verdict.UNDECIDED
            return ParsedReply(decision.verdict.value if decided else None, decision.reason)

        reply = await self.ask(messages, read)
        verdict = Verdict.UNDECIDED if reply.value is None else Verdict(reply.value)
        return JudgeResult(verdict, reply.reason, reply.text, reply.usage)

    async def ask(self, messages: Messages, read: ReplyReader) -> JudgeReply:
        """Return one reply, from the cache or within the budget, parsed by `read`."""
        messages = [{**message, "content": encodable(message["content"])} for message in messages]
        body: JsonObject = {
            "messages": messages,
            "temperature": 0.0,
            "max_tokens": self.max_tokens,
            "seed": 0,
            "extra_body": dict(self.extra_body) or None,
        }
        key = VerdictCache.key(self.identity, body)
        if self.cache is not None and (cached := self.cache.get(key)):
            # Parse again with the current parser. The cache holds no reply that was cut off.
            parsed = read(cached[1], "stop")
            if parsed.reason != JudgeReason.EMPTY:  # an earlier version cached empty replies as "no answer"
                return JudgeReply(parsed.value, parsed.reason, cached[1], Usage(cached=True))
        estimate = (tokens_at_most(messages), self.max_tokens)
        if not self.budget.reserve(*estimate):
            return JudgeReply(None, JudgeReason.BUDGET, "")
        reservations, billed = [estimate], (0, 0)

        def on_fault(fault: Fault) -> None:
            nonlocal billed
            if fault.kind in UNBILLED_FAULTS:
                return
            # A failed request may still be billed; reserve tokens for the retry, too.
            billed = (billed[0] + estimate[0], billed[1] + estimate[1])
            if not self.budget.reserve(*estimate):
                raise BudgetExceeded
            reservations.append(estimate)

        try:
            reply = await self.endpoint.ask(body, on_fault)
            # If the server reports no usage, the estimate is charged.
            billed = (
                billed[0] + (estimate[0] if reply.prompt_tokens is None else reply.prompt_tokens),
                billed[1] + (estimate[1] if reply.completion_tokens is None else reply.completion_tokens),
            )
        except Fault as fault:
            return JudgeReply(None, f"{JudgeReason.FAILED}: {fault.kind}", str(fault))
        except BudgetExceeded:
            return JudgeReply(None, JudgeReason.BUDGET, "")
        finally:
            inputs, outputs = zip(*reservations, strict=True)
            self.budget.settle((sum(inputs), sum(outputs)), billed)
        parsed = read(reply.text, reply.finish_reason)
        if parsed.value is None and reply.reasoning and not reply.text.strip():
            parsed = ParsedReply(None, JudgeReason.ONLY_REASONING)
        if self.cache is not None and parsed.value is not None:
            self.cache.put(key, self.identity, parsed.value, reply.text)
        return JudgeReply(parsed.value, parsed.reason, reply.text, Usage(*billed, reply.seconds))

    async def judge_all(
        self,
        items: Iterator[Item],
        decide: "Callable[[Judge, Item], Awaitable[JudgeResult]]",
        on_result: Callable[[Item, JudgeResult], None],
    ) -> None:
        """Judge items with bounded concurrency, until the judge is unavailable.

        Args:
            items: are taken one by one.
            decide: asks about one item.
            on_result: is called as soon as an item's result is there.
        """

        async def work() -> None:
            for item in items:
                if self.unavailable:
                    return
                result = await decide(self, item)
                on_result(item, result)
                self.note(result)

        await gather_or_cancel(work() for _ in range(self.concurrency))

    def note(self, result: JudgeResult) -> None:
        """Count failures in a row; too many make the judge unavailable."""
        failed = result.reason.startswith(JudgeReason.FAILED)
        self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        if self._failures_in_a_row >= max(MAX_FAILURES_IN_A_ROW, self.concurrency):
            self.unavailable = (
                f"{self._failures_in_a_row} answers in a row could not be judged; the last: {result.reply}"
            )

    def forgive(self) -> None:
        """Forget failures, so that a judge that was given up is asked again."""
        self.unavailable, self._failures_in_a_row = "", 0


def encodable(text: str) -> str:
    """Return text that UTF-8 can encode: a model's output may hold half of a surrogate pair."""
    return text.encode(errors="replace").decode()


def tokens_at_most(messages: Messages) -> int:
    """Return an upper bound of the messages' tokens, without a tokenizer."""
    return sum(len(message["content"].encode(errors="replace")) for message in messages) // BYTES_PER_TOKEN
