"""`rlfr-eval vlm` from end to end: the spine of `evaluation.py`, with VLMEvalKit's data, prompts and scoring."""

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.vlm import BY_ROW
from rlfr_eval.benchmarks.vlm_problems import VlmProblemSet, read_vlm_problems
from rlfr_eval.judge.phase import Prompts
from rlfr_eval.judge.vlm_known_cases import vlm_known_cases
from rlfr_eval.run.evaluation import Evaluation
from rlfr_eval.run.folder import RunStore
from rlfr_eval.run.restore import restore
from rlfr_eval.score.verdicts import Chosen
from rlfr_eval.vlmeval.cross_check import cross_check, lines
from rlfr_eval.vlmeval.scoring import Scoring
from rlfr_eval.vlmeval.upstream_score import check_score_location, upstream_percent
from rlfr_eval.vlmeval.worker_process import WorkerProcess


@dataclass
class VlmEvaluation(Evaluation):
    """Everything one `rlfr-eval vlm` needs to know.

    Attributes:
        worker: VLMEvalKit's process, started.
        cross_check: have VLMEvalKit evaluate the answers, too.
    """

    worker: WorkerProcess = dataclasses.field(kw_only=True)
    kind: str = "vlm"
    cross_check: bool = False
    _others: dict[str, tuple[Any, VlmProblemSet]] = dataclasses.field(default_factory=dict)

    def _read(self) -> dict[str, VlmProblemSet]:
        found = {}
        known = []
        for one in self.benchmarks:
            benchmark, data = open_benchmark(one, self.data_dir, self.worker)
            if data.without_image:
                print(f"{one.name}: VLMEvalKit leaves {data.without_image} rows without an image out", file=sys.stderr)
            found[one.name] = data
            known.append(benchmark)
        self.benchmarks = known
        return found

    def _restore(self, store: RunStore, but: frozenset[str] = frozenset()) -> tuple[Chosen, dict[str, int]]:
        everything, planned = restore_vlm(store, self.worker, self._data, self._others, but=but)
        self._scoring = Scoring(self.worker, everything)
        return everything, planned

    def _grade(self, store: RunStore, chosen: Chosen, on_graded: Callable[[int], None]) -> None:
        self._scoring.grade_by_rules(store, on_graded)

    def run(self) -> tuple[dict[str, Any], bool]:
        scores, complete = super().run()
        if self.cross_check:
            with RunStore(self.folder) as store:
                found = cross_check(store, Scoring(self.worker, self.chosen), scores)
                store.save_run(cross_check=found)
            print("\n".join(lines(found)), file=sys.stderr)
        return scores, complete

    def _prompts(self) -> Prompts:
        return Scoring(self.worker, self.chosen).prompts

    def _judging(self) -> dict[str, Any]:
        return judging(Scoring(self.worker, self.chosen))


def judging(scoring: Scoring) -> dict[str, Any]:
    """How a judge decides an answer, and the cases it is checked with."""
    families = [benchmark.family for benchmark, _ in scoring.chosen.values()]
    return {"decide": scoring.decide(), "cases": vlm_known_cases(families, scoring)}


def open_benchmark(
    benchmark: Any, data_dir: Path, worker: WorkerProcess, check: bool = True
) -> tuple[Any, VlmProblemSet]:
    """Read a benchmark's rows; returns it with what only VLMEvalKit could tell.

    Raises:
        UserError: its file cannot be used, or it does not say where VLMEvalKit's score stands and has to.
    """
    version = worker.hello()["ms-vlmeval"]
    data = read_vlm_problems(benchmark, data_dir, worker, check)
    if data.family == BY_ROW:
        check_score_location(benchmark.name, benchmark.score)
        _try_score(benchmark, data, worker)
        benchmark = dataclasses.replace(benchmark, judge="never")  # nobody here knows how to read what it would say
    told = {
        "family": data.family,
        "vlmeval_version": version,
        "n": benchmark.n or len(data.problems),
        "official": not benchmark.md5 or data.md5 == benchmark.md5,
    }
    return dataclasses.replace(benchmark, **told), data


def _try_score(benchmark: Any, data: VlmProblemSet, worker: WorkerProcess) -> None:
    """Score the first reference as if it were an answer: it shows at once whether [score] says where the score is."""
    (first, *_) = data.problems
    outcome = worker.score(
        benchmark.name, [{"id": first.id, "prediction": first.golds[0], "given": {}, "compare": "vlmeval"}]
    )[0]
    if "result" in outcome:
        upstream_percent(benchmark.name, benchmark.score, outcome["result"])


def restore_vlm(
    store: RunStore,
    worker: WorkerProcess,
    known: Mapping[str, VlmProblemSet] | None = None,
    others: dict[str, tuple[Any, VlmProblemSet]] | None = None,
    data_dir: Path | None = None,
    whole: bool = False,
    but: frozenset[str] = frozenset(),
) -> tuple[Chosen, dict[str, int]]:
    """`runs.restore` with VLMEvalKit's process.

    Args:
        known: sets that are open already.
        others: takes what is opened here, and has it when it is wanted again.
    """
    others = {} if others is None else others

    def read(benchmark: Any, folder: Path) -> tuple[Any, VlmProblemSet]:
        if known and benchmark.name in known:
            return benchmark, known[benchmark.name]
        if benchmark.name in others:
            return others[benchmark.name]
        if data_dir is not None and benchmark.file and (data_dir / f"{benchmark.vlmeval}.tsv").is_file():
            benchmark = dataclasses.replace(benchmark, file="")  # --data-dir says where it is now
        others[benchmark.name] = open_benchmark(benchmark, folder, worker, check=False)
        return others[benchmark.name]

    return restore(store, data_dir, whole, read, but)
