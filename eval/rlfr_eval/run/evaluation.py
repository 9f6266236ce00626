"""One evaluation from end to end: read, serve, ask, stop serving, grade, judge, score."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark, Benchmark
from rlfr_eval.benchmarks.text_problems import read_problems
from rlfr_eval.judge.choice import JudgeChoice
from rlfr_eval.judge.phase import Prompts, check_first, compare_prompts, expected_cost, imagined_cost, judge_undecided
from rlfr_eval.judge.session import JudgeOptions, check_judge_settings
from rlfr_eval.model.answering import Answering, Task, tasks
from rlfr_eval.model.context_length import check_lengths, check_prompts
from rlfr_eval.model.endpoint import Endpoint
from rlfr_eval.model.serving import ServedModel, ServingOptions, serve_model
from rlfr_eval.progress import answer_bar
from rlfr_eval.run.folder import RUN_FILE, RunStore
from rlfr_eval.run.restore import about, configuration, limited, restore, session
from rlfr_eval.score.scores import score_run
from rlfr_eval.score.verdicts import Chosen, grade_by_rules
from rlfr_eval.settings import Settings

# vLLM takes what a request leaves out from the model's generation_config.json, unless it is told not to
VLLM_NEUTRAL = {"repetition_penalty": 1.0, "min_p": 0.0, "top_k": -1}


@dataclass
class Evaluation:
    """Everything one `rlfr-eval lm` needs to know. `record` is run.json, once it is written.

    Attributes:
        keep_servers: leave the model's server running while a judge judges, when both have a place.
    """

    benchmarks: Sequence[AnyBenchmark]
    serving: ServingOptions
    settings: Settings
    judge: JudgeChoice | None
    judge_options: JudgeOptions
    folder: Path
    data_dir: Path
    limit: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    omit: Sequence[str] = ()
    concurrency: int = 64
    time_limit: float = 1800.0
    max_tries: int = 6
    keep_servers: bool = False
    kind: str = "lm"
    record: dict[str, Any] = field(default_factory=dict)
    _data: dict[str, Any] = field(default_factory=dict)
    _kept: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self._data = self._read()
        check_lengths(self.benchmarks, self.serving.context())
        if self.judge is not None:
            check_judge_settings(self.judge, self.settings, self.judge_options)

    def _read(self) -> dict[str, Any]:
        """Problem sets by benchmark."""
        return {one.name: read_problems(one, self.data_dir) for one in self.benchmarks if isinstance(one, Benchmark)}

    def _restore(self, store: RunStore, but: frozenset[str] = frozenset()) -> tuple[Chosen, dict[str, int]]:
        """What this and earlier calls measured, but for some benchmarks."""
        return restore(store, but=but)

    def _grade(self, store: RunStore, chosen: Chosen, on_graded: Callable[[int], None]) -> None:
        """Verdicts by rules on everything that has none."""
        grade_by_rules(store, chosen, on_graded)

    def _judging(self) -> dict[str, Any]:
        """How a judge decides an answer, and the cases it is checked with, where those are not the common ones."""
        return {"decide": None, "cases": None}

    def _prompts(self) -> Prompts:
        """What a judge would be asked about answers."""
        return compare_prompts(self.chosen)

    @property
    def chosen(self) -> dict[str, tuple[AnyBenchmark, tuple[Any, ...]]]:
        """Benchmarks with the problems that are to be answered."""
        return {one.name: (one, limited(self._data[one.name], self.limit)) for one in self.benchmarks}

    def plan(self) -> str:
        """What `run` would do, and what the judge could cost."""
        lines = []
        requests = 0
        for name, (one, problems) in self.chosen.items():
            count, sampling = len(problems) * one.sampling.samples, one.sampling
            partial = f" PARTIAL of {len(self._data[name].problems)}" if self.limit else ""
            lines.append(
                f"{name}: {len(problems)} problems{partial} x {sampling.samples}, prompt {one.prompt}, "
                f"temperature {sampling.temperature:g}, {sampling.max_tokens} tokens, judge: {one.judge}"
            )
            requests += count
        lines.append(f"{requests} answers of {self.serving.name or 'what the server serves'} into {self.folder}")
        if self.judge is None:
            lines.append("judge: none; what rules leave undecided stays undecided")
        elif (self.folder / RUN_FILE).exists():
            with RunStore(self.folder, read_only=True) as store:
                cost = expected_cost(store, self.chosen, self.settings, self._prompts())
            lines.append(f"judge named by {self.judge.named_by}: {cost} (of the answers that are there)")
        else:
            cost = imagined_cost(self.chosen, self.settings, self._prompts())
            lines.append(f"judge named by {self.judge.named_by}: {cost}")
        return "\n".join(lines)

    def run(self) -> tuple[dict[str, Any], bool]:
        """Do it. Returns the scores, and whether nothing is left for another call."""
        with self._kept:
            return self._run()

    def _run(self) -> tuple[dict[str, Any], bool]:
        self._find_others()
        checked, judging = None, self._judging()
        if self.judge is not None and self.judge.url and any(one.judge == "undecided" for one in self.benchmarks):
            first = check_first(self.judge, self.settings, self.folder, self.judge_options, judging["cases"])
            checked = asyncio.run(first)
        gone = "" if self._answered_already() else self._answer()
        with RunStore(self.folder) as store:
            everything, planned = self._restore(store)
            total = sum(len(problems) * one.sampling.samples for one, problems in everything.values())
            with answer_bar(total, "grading") as shown:
                self._grade(store, everything, shown.update)
            score_run(store, everything, {}, planned)  # stands until, and unless, a judge has said more
            report = judge_undecided(
                store, self.chosen, self.judge, self.settings, self.judge_options, checked=checked, **judging
            )
            scores = score_run(store, everything, store.run.get("judges", {}), planned)
            self.record = store.run
        missing = sum(scores["benchmarks"][name]["missing"] for name in self._data)
        if gone:
            print(f"the model's server is gone: {gone}", file=sys.stderr)
        return scores, not missing and not report.unfinished

    def _find_others(self) -> None:
        """Before anybody is asked: the folder's other benchmarks, which will be scored again, must be found."""
        if (self.folder / RUN_FILE).exists():
            with RunStore(self.folder, read_only=True) as store:
                self._restore(store, frozenset(self._data))

    def _answered_already(self) -> bool:
        """Whether a model of our own has nothing left to answer, so that it need not even be served."""
        if self.serving.url or not (self.folder / RUN_FILE).exists():
            return False
        with RunStore(self.folder) as store:
            self._begin(store, self.serving.identity(), store.run.get("base_url", ""), store.run.get("context"))
            return not self._missing(store)

    def _missing(self, store: RunStore) -> list[Task]:
        done = {row["id"] for row in store.answers()}
        return [task for task in tasks(self.chosen) if task.id not in done]

    def _answer(self) -> str:
        """Get what is missing; a server of our own that dies is started once more. Returns "", or why it is gone."""
        gone = ""
        for _ in range(2):
            with ExitStack() as stack:
                place = stack.enter_context(serve_model(self.serving, self.folder))
                gone = asyncio.run(self._ask(place))
                if self.keep_servers and not gone:
                    self._kept.push(stack.pop_all())
                if not gone or place.server is None:
                    break
                print(f"the model's server is gone ({gone}). {place.server.log_end()}", file=sys.stderr)
        return gone

    async def _ask(self, place: ServedModel) -> str:
        key = "" if place.server else self.settings["RLFR_EVAL_API_KEY"]
        async with Endpoint(place.url, place.name, key, self.time_limit, self.max_tries) as endpoint:
            card = await endpoint.resolve_model("--model")
            context = card.get("max_model_len")
            check_lengths(self.benchmarks, context)
            model = self._identity(endpoint, card)
            with RunStore(self.folder) as store:
                self._begin(store, model, place.url, context, session())
                todo = self._missing(store)
                if not todo:
                    return ""
                await check_prompts(endpoint, self.chosen, context)
                total = sum(len(problems) * one.sampling.samples for one, problems in self.chosen.values())
                with answer_bar(total, "answers", total - len(todo)) as shown:
                    neutral = VLLM_NEUTRAL if card.get("owned_by") == "vllm" else {}
                    return await Answering(
                        endpoint,
                        store,
                        concurrency=self.concurrency,
                        extra_body={**neutral, **self.extra_body},
                        omit=self.omit,
                        on_answer=shown.update,
                        alive=lambda: place.server is None or place.server.alive,
                    ).run(_once(todo))

    def _identity(self, endpoint: Endpoint, card: dict[str, Any]) -> dict[str, Any]:
        """What ties answers to a model: its weights where they are known, else the server that gives it a name."""
        if not self.serving.url:
            return self.serving.identity()
        root = card.get("root")
        where = {"url": endpoint.url} if root in (None, endpoint.model) else {"root": root}
        return {"name": endpoint.model, **where}

    def _begin(
        self,
        store: RunStore,
        model: dict[str, Any],
        url: str,
        context: int | None,
        now: dict[str, Any] | None = None,
    ) -> None:
        configurations = {
            one.name: configuration(one, self._data[one.name], self.extra_body, self.omit) for one in self.benchmarks
        }
        more = about(self.benchmarks, self.data_dir, self.limit, base_url=url, context=context, kind=self.kind)
        store.begin(model, configurations, more, now)
        for lines in (store.samples, store.verdicts, store.failures):
            if lines.repaired:
                print(f"{lines.path.name}: its last line was torn and was cut off", file=sys.stderr)


def _once(todo: list[Task]) -> Iterator[Task]:
    """Hand tasks out, each to one worker, and forget them."""
    todo.reverse()
    while todo:
        yield todo.pop()
