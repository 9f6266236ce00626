"""One evaluation from end to end: read problems, serve the model, ask it, stop it, grade, judge, score."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_eval.judge.phase import check_first, expected_cost, imagined_cost, judge_undecided
from rlfr_eval.kinds.kind import AnyOpenBenchmark, Kind
from rlfr_eval.model.answering import Answering, Task, tasks
from rlfr_eval.model.context_length import check_lengths, check_prompts
from rlfr_eval.model.serving import ServedModel, ServingOptions, headers_of, serve_model
from rlfr_eval.progress import answer_bar
from rlfr_eval.run.folder import RUN_FILE, RunStore
from rlfr_eval.run.restore import configuration, describe, restore, session
from rlfr_eval.schema import RunRecord, Selections, Session
from rlfr_eval.score.scores import score_run
from rlfr_vlm.env_settings import Settings
from rlfr_vlm.files import JsonObject
from rlfr_vlm.judging.choice import JudgeChoice
from rlfr_vlm.judging.session import JudgeOptions, check_judge_settings
from rlfr_vlm.redaction import secret_values
from rlfr_vlm.servers.endpoint import Endpoint
from rlfr_vlm.servers.request_fields import neutral_sampling
from rlfr_vlm.servers.urls import base_url, split_query

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.text import AnyBenchmark


@dataclass
class Evaluation:
    """One call of `rlfr-eval lm` or `rlfr-eval vlm`.

    Attributes:
        kind: reads problems, grades, and asks the judge.
        benchmarks: as they are to be measured; `opened` has them with their problems.
        limit: number of problems of each benchmark; None for all.
        extra_body: added to each request.
        omit: fields left out of each request.
        time_limit: seconds for a request.
        keep_servers: leave the model's server running while a judge judges.
        record: run.json, after `run`.
    """

    kind: Kind
    benchmarks: "Sequence[AnyBenchmark[Any]]"
    serving: ServingOptions
    settings: Settings
    judge: JudgeChoice | None
    judge_options: JudgeOptions
    folder: Path
    data_dir: Path
    limit: int | None = None
    extra_body: JsonObject = field(default_factory=dict)
    omit: Sequence[str] = ()
    concurrency: int = 64
    time_limit: float = 1800.0
    max_tries: int = 6
    keep_servers: bool = False
    record: RunRecord = field(default_factory=RunRecord)
    opened: dict[str, AnyOpenBenchmark] = field(init=False)
    selections: Selections = field(init=False)
    _kept_servers: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.opened = {benchmark.name: self.kind.open(benchmark, self.data_dir) for benchmark in self.benchmarks}
        self.selections = {name: opened.select(self.limit) for name, opened in self.opened.items()}
        check_lengths(self._measured(), self.serving.context())
        headers_of(self.settings)  # fail early
        if self.judge is not None:
            check_judge_settings(self.judge, self.settings, self.judge_options)

    def _measured(self) -> "list[AnyBenchmark[Any]]":
        """The benchmarks, completed by the kind."""
        return [opened.benchmark for opened in self.opened.values()]

    def plan(self) -> str:
        """Describe what `run` would do, and what the judge would cost at most."""
        lines = []
        for name, selection in self.selections.items():
            benchmark, sampling = selection.benchmark, selection.benchmark.sampling
            partial = f" PARTIAL of {selection.planned}" if self.limit else ""
            lines.append(
                f"{name}: {len(selection.problems)} problems{partial} x {sampling.samples}, "
                f"prompt {benchmark.prompt}, temperature {sampling.temperature:g}, {sampling.max_tokens} tokens, "
                f"judge: {benchmark.judge}"
            )
        requests = self._planned_answers()
        lines.append(f"{requests} answers of {self.serving.name or 'what the server serves'} into {self.folder}")
        if self.judge is None:
            lines.append("judge: none; what rules leave undecided stays undecided")
        elif (self.folder / RUN_FILE).exists():
            with RunStore(self.folder, read_only=True) as store:
                cost = expected_cost(store, self.selections, self.settings, self.kind, self.judge)
            lines.append(f"judge named by {self.judge.named_by}: {cost} (of the answers that are there)")
        else:
            cost = imagined_cost(self.selections, self.settings, self.kind)
            lines.append(f"judge named by {self.judge.named_by}: {cost}")
        return "\n".join(lines)

    def _planned_answers(self) -> int:
        return sum(selection.answers for selection in self.selections.values())

    def run(self) -> tuple[JsonObject, bool]:
        """Run the evaluation; returns the scores, and whether all is answered and judged."""
        with self._kept_servers:
            return self._run()

    def _run(self) -> tuple[JsonObject, bool]:
        self._check_other_benchmarks()
        checked = None
        if self.judge is not None and self.judge.url and any(one.judge == "undecided" for one in self._measured()):
            cases = self.kind.known_cases(self.selections)
            check = check_first(self.judge, self.settings, self.folder, self.judge_options, cases)
            checked = asyncio.run(check)
        gone = "" if self._answered_already() else self._answer()
        with RunStore(self.folder) as store:
            everything = restore(store, self.kind)
            with answer_bar(sum(selection.answers for selection in everything.values()), "grading") as progress:
                self.kind.grade(store, everything, progress.update)
            score_run(store, everything, {})  # provisional scores, overwritten after judging
            report = judge_undecided(
                store,
                self.selections,
                self.kind,
                self.judge,
                self.settings,
                self.judge_options,
                checked=checked,
            )
            scores = score_run(store, everything, store.run.get("judges", {}))
            self.record = store.run
        missing = sum(scores["benchmarks"][name]["missing"] for name in self.selections)
        if gone:
            print(f"the model's server is gone: {gone}", file=sys.stderr)
        return scores, not missing and not report.unfinished

    def _check_other_benchmarks(self) -> None:
        """Fail early if another benchmark of this run folder, which will be scored again, cannot be restored."""
        if (self.folder / RUN_FILE).exists():
            with RunStore(self.folder, read_only=True) as store:
                restore(store, self.kind, exclude=self.selections)

    def _answered_already(self) -> bool:
        """Whether a model that is served here has nothing left to answer, so that it need not be served."""
        if self.serving.url or not (self.folder / RUN_FILE).exists():
            return False
        with RunStore(self.folder) as store:
            self._begin(store, self.serving.identity(), store.run.get("base_url", ""), store.run.get("context"))
            return not self._missing(store)

    def _missing(self, store: RunStore) -> list[Task]:
        done = {sample.id for sample in store.answers()}
        return [task for task in tasks(self.selections) if task.id not in done]

    def _answer(self) -> str:
        """Get missing answers, and restart a crashed local server once; returns "", or why the server is gone."""
        gone = ""
        for _ in range(2):
            with ExitStack() as stack:
                server = stack.enter_context(serve_model(self.serving, self.folder))
                gone = asyncio.run(self._ask(server))
                if self.keep_servers and not gone:
                    self._kept_servers.push(stack.pop_all())
                if not gone or server.server is None:
                    break
                print(f"the model's server is gone ({gone}). {server.server.log_end()}", file=sys.stderr)
        return gone

    async def _ask(self, server: ServedModel) -> str:
        key = "" if server.server else self.settings["RLFR_EVAL_API_KEY"]
        secrets = tuple(secret_values(self.extra_body))
        async with Endpoint(
            server.url,
            server.name,
            key,
            self.time_limit,
            self.max_tries,
            secrets=secrets,
            headers={} if server.server else headers_of(self.settings),
        ) as endpoint:
            card = await endpoint.resolve_model("--model")
            context = card.get("max_model_len")
            check_lengths(self._measured(), context)
            model = self._identity(endpoint, card)
            with RunStore(self.folder) as store:
                self._begin(store, model, server.url, context, session())
                todo = self._missing(store)
                if not todo:
                    return ""
                await check_prompts(endpoint, self.selections, context)
                total = self._planned_answers()
                with answer_bar(total, "answers", total - len(todo)) as progress:
                    owner = card.get("owned_by")
                    return await Answering(
                        endpoint,
                        store,
                        concurrency=self.concurrency,
                        extra_body={**neutral_sampling(owner), **self.extra_body},
                        omit=self.omit,
                        owner=owner,
                        on_answer=progress.update,
                        alive=lambda: server.server is None or server.server.alive,
                    ).run(_pop_all(todo))

    def _identity(self, endpoint: Endpoint, card: JsonObject) -> JsonObject:
        """What ties answers to a model: its weights where they are known, else its name and server."""
        if not self.serving.url:
            return self.serving.identity()
        root = card.get("root")
        url = base_url(self.serving.moved_from, "--moved-from") if self.serving.moved_from else endpoint.url
        where = {"url": split_query(url)[0]} if root in (None, endpoint.model) else {"root": root}
        return {"name": endpoint.model, **where}

    def _begin(
        self, store: RunStore, model: JsonObject, url: str, context: int | None, this_session: Session | None = None
    ) -> None:
        configurations = {
            name: configuration(opened.benchmark, opened.data, self.extra_body, self.omit)
            for name, opened in self.opened.items()
        }
        description = describe(self._measured(), self.data_dir, self.limit, self.kind.name)
        planned = {name: selection.answers for name, selection in self.selections.items()}
        facts: RunRecord = {"base_url": url, "context": context, "planned": planned}
        store.begin(model, configurations, {**description, **facts}, this_session)
        if this_session:
            self._note_larger_plan(store.run)
        for lines in (store.samples, store.verdicts, store.failures):
            if lines.repaired:
                print(f"{lines.path.name}: its last line was torn and was cut off", file=sys.stderr)

    def _note_larger_plan(self, record: RunRecord) -> None:
        """Say where earlier calls planned more answers than this one asks for."""
        for name, selection in self.selections.items():
            limit, samples = record["limits"][name], record["specs"][name]["sampling"]["samples"]
            planned = len(self.opened[name].select(limit).problems) * samples
            if planned > selection.answers:
                print(
                    f"{name}: an earlier call planned {planned} answers in {self.folder}; this one asks for "
                    f"{selection.answers} of them, and the score is about all",
                    file=sys.stderr,
                )


def _pop_all(todo: list[Task]) -> Iterator[Task]:
    """Yield each task once, and free its memory."""
    todo.reverse()
    while todo:
        yield todo.pop()
