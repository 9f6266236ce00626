"""Ask the model every question that has no answer yet, and store each answer when it arrives."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark
from rlfr_eval.model.endpoint import TOO_LONG, Endpoint, Fault, Reply
from rlfr_eval.run.folder import RunStore
from rlfr_vlm.errors import UserError
from rlfr_vlm.provenance import short_hash

WATCH = 1.0  # seconds between looks at a server of our own
GIVE_UP = 8  # requests in a row that fail after all tries, or as many as are on their way at a time


@dataclass(frozen=True)
class Task:
    """One answer to get: sample `number` of a problem."""

    benchmark: AnyBenchmark
    problem: Any
    number: int

    @property
    def id(self) -> str:
        return f"{self.benchmark.name}/{self.problem.id}/{self.number}"


def tasks(chosen: Mapping[str, tuple[Any, tuple[Any, ...]]]) -> Iterator[Task]:
    """All tasks: first samples of every problem before second ones, so that a stopped run is even."""
    for benchmark, problems in chosen.values():
        for number in range(benchmark.sampling.samples):
            for problem in problems:
                yield Task(benchmark, problem, number)


def request_body(task: Task, extra_body: Mapping[str, Any], omit: Sequence[str] = ()) -> dict[str, Any]:
    """The request for a task: prompt, sampling, what the user adds, less what the user's server refuses to hear."""
    sampling = task.benchmark.sampling
    body: dict[str, Any] = {
        **task.benchmark.body(task.problem),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        **({"max_tokens": sampling.max_tokens} if sampling.max_tokens else {}),
        "seed": sampling.seed + task.number,
    }
    extra = {"top_k": sampling.top_k} if sampling.top_k > 0 else {}
    kept = {name: value for name, value in body.items() if name not in omit}
    return {**kept, "extra_body": {**extra_body, **extra} or None}


def sample_row(task: Task, reply: Reply, config: str) -> dict[str, Any]:
    """The line that is kept of an answer. `visible` stands only where reasoning was taken away."""
    benchmark, problem = task.benchmark, task.problem
    found = benchmark.extract(problem, reply.text)
    row = {
        "id": task.id,
        "benchmark": benchmark.name,
        "problem": problem.id,
        "sample": task.number,
        "config": config,
        "raw": reply.text,
        "digest": short_hash(reply.text),
        "extracted": found.answer,
        "how": found.how,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "seconds": reply.seconds,
        "tries": reply.tries,
        "model": reply.model,
        "seed": benchmark.sampling.seed + task.number,
        "time": round(time.time(), 3),
    }
    if found.reasoning != "none":
        row |= {"reasoning": found.reasoning, "visible": found.visible}
    if reply.reasoning:
        row["server_reasoning"] = reply.reasoning
    return row


class Answering:
    """One pass over tasks with a bounded number of requests at a time."""

    def __init__(
        self,
        endpoint: Endpoint,
        store: RunStore,
        *,
        concurrency: int,
        extra_body: Mapping[str, Any],
        omit: Sequence[str] = (),
        on_answer: Callable[[], None] = lambda: None,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self.endpoint, self.store, self.concurrency = endpoint, store, concurrency
        self.extra_body, self.omit, self.on_answer, self.alive = extra_body, omit, on_answer, alive
        self.gone = ""
        self._failed_in_a_row = 0

    async def run(self, todo: Iterator[Task]) -> str:
        """Work through the tasks. Returns "", or why the server is gone and the rest was not asked.

        Raises:
            UserError: what no further request could mend, such as a refused key.
        """
        self._configs = {name: self.store.config_of(name) for name in self.store.run["benchmarks"]}
        workers = [asyncio.create_task(self._work(todo)) for _ in range(self.concurrency)]
        watch = asyncio.create_task(self._watch(workers))
        try:
            await asyncio.gather(*workers)
        except asyncio.CancelledError:
            if not self.gone:
                raise  # Ctrl-C
        finally:
            for task in (*workers, watch):
                task.cancel()
            await asyncio.gather(*workers, watch, return_exceptions=True)
        return self.gone

    async def _watch(self, workers: list["asyncio.Task[None]"]) -> None:
        while self.alive():
            await asyncio.sleep(WATCH)
        self.gone = "it ended"
        for worker in workers:
            worker.cancel()

    async def _work(self, todo: Iterator[Task]) -> None:
        for task in todo:
            if self.gone:
                return
            try:
                reply = await self.endpoint.ask(
                    request_body(task, self.extra_body, self.omit), partial(self._note, task)
                )
            except Fault as fault:
                if fault.kind == TOO_LONG:
                    raise UserError(
                        f"{task.id}: prompt and answer do not fit the model's context ({fault}). Lower --max-tokens "
                        "or serve the model with a longer context; answers are never cut silently."
                    ) from None
                self._give_task_up(fault)
                continue
            self._failed_in_a_row = 0
            self.store.samples.append(sample_row(task, reply, self._configs[task.benchmark.name]))
            self.on_answer()

    def _note(self, task: Task, fault: Fault) -> None:
        self.store.failures.append(
            {"id": task.id, "kind": fault.kind, "text": str(fault), "time": round(time.time(), 3)}
        )

    def _give_task_up(self, fault: Fault) -> None:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= max(GIVE_UP, self.concurrency):
            self.gone = f"{self._failed_in_a_row} requests in a row failed after all tries; the last: {fault}"
