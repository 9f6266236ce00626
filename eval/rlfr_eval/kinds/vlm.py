"""Multimodal benchmarks: VLMEvalKit reads the data, builds the prompts and scores.

Questions of the user's own files without options are an exception: VLMEvalKit cannot score them, so they are graded
and judged as text.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from rlfr_eval.benchmarks.vlm import BY_ROW, OPEN, VlmBenchmark, build_vlm
from rlfr_eval.benchmarks.vlm_problems import VlmProblem, VlmProblemSet, read_vlm_problems
from rlfr_eval.judge.stored import Decide
from rlfr_eval.judge.vlm_known_cases import vlm_known_cases
from rlfr_eval.kinds.kind import OpenBenchmark
from rlfr_eval.kinds.text import TextKind
from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import Sample, Selection, Selections
from rlfr_eval.vlmeval.cross_check import cross_check_run
from rlfr_eval.vlmeval.row_scoring import row_scoring
from rlfr_eval.vlmeval.scoring import Scoring
from rlfr_eval.vlmeval.upstream_score import check_score_location
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.judging.client import Judge, JudgeResult
from rlfr_vlm.judging.known_cases import KnownCases
from rlfr_vlm.judging.prompt import Messages

TRIED_ROWS = 3  # first rows of a set that may show how VLMEvalKit scores it
VlmSelections = Mapping[str, Selection[VlmBenchmark, VlmProblem]]
OpenVlmBenchmark = OpenBenchmark[VlmBenchmark, VlmProblemSet]


class VlmKind:
    """`rlfr-eval vlm`.

    Args:
        worker: VLMEvalKit's process, started.
    """

    name: ClassVar[str] = "vlm"
    compares_prompts: ClassVar[bool] = False

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker, self.scoring = worker, Scoring(worker)
        self._text = TextKind()
        self._opened: dict[str, OpenVlmBenchmark] = {}  # opening a set takes seconds, so each is opened once

    @staticmethod
    def build(spec: JsonObject, where: str) -> VlmBenchmark:
        return build_vlm(spec, where)

    def open(self, benchmark: VlmBenchmark, data_dir: Path) -> OpenVlmBenchmark:
        opened = self._opened[benchmark.name] = open_benchmark(benchmark, data_dir, self.worker)
        if count := opened.data.without_image:
            print(f"{benchmark.name}: VLMEvalKit leaves {count} rows without an image out", file=sys.stderr)
        return opened

    def reopen(self, benchmark: VlmBenchmark, data_dir: Path, moved: bool) -> OpenVlmBenchmark:
        name = benchmark.name
        if name not in self._opened:
            if moved and benchmark.file and (data_dir / f"{benchmark.vlmeval}.tsv").is_file():
                benchmark = dataclasses.replace(benchmark, file="")  # the file is in `data_dir` now
            self._opened[name] = open_benchmark(benchmark, data_dir, self.worker, check=False)
        return self._opened[name]

    def grade(
        self, store: RunStore, selections: Selections, on_graded: Callable[[int], object] = lambda count: None
    ) -> None:
        self._text.grade(store, _graded_as_text(selections), on_graded)
        self.scoring.grade_by_rules(store, _scored_by_vlmevalkit(selections), on_graded)

    def prompts(self, selections: Selections, samples: Sequence[Sample]) -> Iterator[Messages]:
        as_text, scored = _graded_as_text(selections), _scored_by_vlmevalkit(selections)
        for name in dict.fromkeys(sample.benchmark for sample in samples):
            same = [sample for sample in samples if sample.benchmark == name]
            if name in as_text:
                yield from self._text.prompts(as_text, same)
            else:
                yield from self.scoring.prompts(scored[name].benchmark, same)

    def decide(self, selections: Selections) -> Decide:
        """Ask in VLMEvalKit's words, as often as its scoring needs."""
        as_text, scored = _graded_as_text(selections), _scored_by_vlmevalkit(selections)
        decide_text = self._text.decide(as_text)

        async def decide(judge: Judge, sample: Sample) -> JudgeResult:
            if sample.benchmark in as_text:
                return await decide_text(judge, sample)
            return await self.scoring.judge(judge, scored[sample.benchmark].benchmark, sample)

        return decide

    def known_cases(self, selections: Selections) -> KnownCases | None:
        benchmarks = [selection.benchmark for selection in _of_vlm(selections).values()]
        families = [one.family for one in benchmarks if one.judge != "never"]
        return vlm_known_cases(families, self.scoring)

    def cross_check(self, folder: Path, selections: Selections, scores: JsonObject) -> None:
        """Have VLMEvalKit evaluate the stored answers itself, and print the comparison."""
        cross_check_run(folder, self.worker, _of_vlm(selections), scores)


def _of_vlm(selections: Selections) -> VlmSelections:
    """The same selections; a run of this kind holds no other benchmarks."""
    return selections  # type: ignore[return-value]


def _graded_as_text(selections: Selections) -> VlmSelections:
    return {name: one for name, one in _of_vlm(selections).items() if one.benchmark.family == OPEN}


def _scored_by_vlmevalkit(selections: Selections) -> VlmSelections:
    return {name: one for name, one in _of_vlm(selections).items() if one.benchmark.family != OPEN}


def open_benchmark(
    benchmark: VlmBenchmark, data_dir: Path, worker: WorkerProcess, check: bool = True
) -> OpenVlmBenchmark:
    """Read the rows of a benchmark, and complete it with the fields that only VLMEvalKit can tell.

    Raises:
        UserError: its file cannot be used, or its rows cannot be evaluated one by one.
    """
    version = worker.hello()["ms-vlmeval"]
    data = read_vlm_problems(benchmark, data_dir, worker, check)
    known = benchmark.family == BY_ROW and benchmark.vlmeval_version == version  # as a run recorded it
    if data.family == BY_ROW and not known:
        benchmark = _scored_by_row(benchmark, data, worker)
    completed = dataclasses.replace(
        benchmark,
        family=data.family,
        vlmeval_version=version,
        n=benchmark.n or len(data.problems),
        grouping=data.grouping,
        questions=len(data.questions) if data.grouping else 0,
        official=not benchmark.md5 or data.md5 == benchmark.md5,
    )
    return OpenBenchmark(completed, data)


def _scored_by_row(benchmark: VlmBenchmark, data: VlmProblemSet, worker: WorkerProcess) -> VlmBenchmark:
    """Find out by trials with the first rows how VLMEvalKit scores a row, and whether a judge can be asked.

    Raises:
        UserError: VLMEvalKit cannot evaluate a row by itself, or the place of the score is wrong or not found.
    """
    if benchmark.score:
        check_score_location(benchmark.name, benchmark.score)
    trials: list[JsonObject] = []
    for problem in data.problems[:TRIED_ROWS]:
        trials += worker.probe(benchmark.name, problem.id)
        try:
            found = row_scoring(benchmark.name, trials, benchmark.score)
            break
        except UserError as error:
            refused = error
    else:
        raise refused
    return dataclasses.replace(
        benchmark,
        score=dict(found.score),
        judge="never" if found.unjudged else benchmark.judge,
        unjudged=found.unjudged,
        reply=found.reply,
    )
