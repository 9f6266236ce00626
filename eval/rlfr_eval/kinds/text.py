"""Text benchmarks: problems from JSONL files, verdicts by the grader, our question for the judge."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from rlfr_eval.benchmarks.text import Benchmark, build
from rlfr_eval.benchmarks.text_problems import ProblemSet, read_problems
from rlfr_eval.judge.stored import Decide
from rlfr_eval.kinds.kind import OpenBenchmark
from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import Sample, Selections, problems_by_id
from rlfr_eval.score.verdicts import grade_by_rules
from rlfr_vlm.files import JsonObject
from rlfr_vlm.judging.client import Judge, JudgeResult
from rlfr_vlm.judging.known_cases import KnownCases
from rlfr_vlm.judging.prompt import Messages, judge_messages


class TextKind:
    """`rlfr-eval lm`."""

    name: ClassVar[str] = "lm"
    compares_prompts: ClassVar[bool] = True

    @staticmethod
    def build(spec: JsonObject, where: str) -> Benchmark:
        benchmark: Benchmark = build(Benchmark, spec, where)
        return benchmark

    def open(self, benchmark: Benchmark, data_dir: Path) -> OpenBenchmark[Benchmark, ProblemSet]:
        return OpenBenchmark(benchmark, read_problems(benchmark, data_dir))

    def reopen(self, benchmark: Benchmark, data_dir: Path, moved: bool) -> OpenBenchmark[Benchmark, ProblemSet]:
        own_file = data_dir / Path(benchmark.path).name
        if moved and benchmark.path and own_file.is_file():
            benchmark = dataclasses.replace(benchmark, path=str(own_file.resolve()))
        return OpenBenchmark(benchmark, read_problems(benchmark, data_dir, check=False))

    def grade(
        self, store: RunStore, selections: Selections, on_graded: Callable[[int], object] = lambda count: None
    ) -> None:
        grade_by_rules(store, selections, on_graded)

    def prompts(self, selections: Selections, samples: Sequence[Sample]) -> Iterator[Messages]:
        problems = problems_by_id(selections)
        for sample in samples:
            problem = problems[sample.benchmark, sample.problem]
            yield judge_messages(problem.question, problem.golds, sample.prediction)

    def decide(self, selections: Selections) -> Decide:
        """Show the judge question, golds and the extracted answer."""
        problems = problems_by_id(selections)

        async def decide(judge: Judge, sample: Sample) -> JudgeResult:
            problem = problems[sample.benchmark, sample.problem]
            return await judge.judge(problem.question, problem.golds, sample.prediction)

        return decide

    def known_cases(self, selections: Selections) -> KnownCases | None:
        return None
