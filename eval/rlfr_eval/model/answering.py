"""Request every answer that a run still lacks, and store each answer when it arrives."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark
from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import AnyProblem, Failure, Sample, Selections
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonMapping, JsonObject
from rlfr_vlm.provenance import short_hash
from rlfr_vlm.servers.endpoint import MAX_FAILURES_IN_A_ROW, TOO_LONG, Endpoint, Fault, Reply
from rlfr_vlm.servers.request_fields import with_pixel_limits

POLL_INTERVAL = 1.0  # seconds between checks whether a local server is alive


@dataclass(frozen=True)
class Task:
    """One answer to request: sample `number` of a problem."""

    benchmark: AnyBenchmark[Any]
    problem: AnyProblem
    number: int

    @property
    def id(self) -> str:
        return f"{self.benchmark.name}/{self.problem.id}/{self.number}"


def tasks(selections: Selections) -> Iterator[Task]:
    """Yield all tasks: sample 0 of every problem, then sample 1, so that an interrupted run covers all equally."""
    for selection in selections.values():
        for number in range(selection.benchmark.sampling.samples):
            for problem in selection.problems:
                yield Task(selection.benchmark, problem, number)


def request_body(task: Task, extra_body: JsonMapping, omit: Sequence[str] = ()) -> JsonObject:
    """Return the request for a task: prompt, sampling and extra fields, without the fields listed in `omit`."""
    sampling = task.benchmark.sampling
    body: JsonObject = {
        **task.benchmark.body(task.problem),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        **({"max_tokens": sampling.max_tokens} if sampling.max_tokens else {}),
        "seed": sampling.seed + task.number,
    }
    top_k = {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
    body = {name: value for name, value in body.items() if name not in omit}
    return {**body, "extra_body": {**extra_body, **top_k} or None}


def sample_of(task: Task, reply: Reply, config: str) -> Sample:
    """Return the answer as it is stored. It has `visible` only if reasoning was removed."""
    benchmark, problem = task.benchmark, task.problem
    extraction = benchmark.extract(problem, reply.text)
    has_reasoning = extraction.reasoning != "none"
    return Sample(
        id=task.id,
        benchmark=benchmark.name,
        problem=problem.id,
        sample=task.number,
        config=config,
        raw=reply.text,
        digest=short_hash(reply.text),
        extracted=extraction.answer,
        how=extraction.how,
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        seconds=reply.seconds,
        tries=reply.tries,
        model=reply.model,
        seed=benchmark.sampling.seed + task.number,
        time=round(time.time(), 3),
        reasoning=extraction.reasoning if has_reasoning else "",
        visible=extraction.visible if has_reasoning else None,
        server_reasoning=reply.reasoning,
    )


class Answering:
    """One pass over tasks with bounded concurrency.

    Args:
        owner: whose server it is, as its list of models says.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: RunStore,
        *,
        concurrency: int,
        extra_body: JsonMapping,
        omit: Sequence[str] = (),
        owner: object = "",
        on_answer: Callable[[], object] = lambda: None,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self.endpoint, self.store, self.concurrency = endpoint, store, concurrency
        self.extra_body, self.omit, self.owner = extra_body, omit, owner
        self.on_answer, self.alive = on_answer, alive
        self.unavailable = ""
        self._failures_in_a_row = 0

    async def run(self, todo: Iterator[Task]) -> str:
        """Work through the tasks. Returns "", or why the server is unavailable and the rest was not requested.

        Raises:
            UserError: a problem that affects every request, such as a refused key.
        """
        self._configs = {name: self.store.config_of(name) for name in self.store.run["benchmarks"]}
        workers = [asyncio.create_task(self._work(todo)) for _ in range(self.concurrency)]
        watch = asyncio.create_task(self._watch(workers))
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            if not self.unavailable:
                raise  # Ctrl-C
        finally:
            for task in (*workers, watch):
                task.cancel()
            await asyncio.gather(*workers, watch, return_exceptions=True)
        return self.unavailable

    async def _watch(self, workers: list["asyncio.Task[None]"]) -> None:
        while self.alive():
            await asyncio.sleep(POLL_INTERVAL)
        self.unavailable = "it ended"
        for worker in workers:
            worker.cancel()

    async def _work(self, todo: Iterator[Task]) -> None:
        for task in todo:
            if self.unavailable:
                return
            try:
                body = with_pixel_limits(request_body(task, self.extra_body, self.omit), self.owner)
                reply = await self.endpoint.ask(body, partial(self._store_fault, task))
            except Fault as fault:
                if fault.kind == TOO_LONG:
                    raise UserError(
                        f"{task.id}: prompt and answer do not fit the model's context ({fault}). Lower --max-tokens "
                        "or serve the model with a longer context; answers are never cut silently."
                    ) from None
                self._count_failure(fault)
                continue
            self._failures_in_a_row = 0
            self.store.add_sample(sample_of(task, reply, self._configs[task.benchmark.name]))
            self.on_answer()

    def _store_fault(self, task: Task, fault: Fault) -> None:
        self.store.add_failure(Failure(task.id, fault.kind, str(fault), round(time.time(), 3)))

    def _count_failure(self, fault: Fault) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(MAX_FAILURES_IN_A_ROW, self.concurrency):
            self.unavailable = f"{self._failures_in_a_row} requests in a row failed after all tries; the last: {fault}"
