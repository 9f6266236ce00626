"""The protocol of a kind of evaluation: what differs between text benchmarks and VLMEvalKit's.

`rlfr-eval lm` and `rlfr-eval vlm` build a kind directly. Commands that work on stored answers get it from `open_kind`,
by the record of the run folder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from rlfr_eval.judge.stored import Decide
from rlfr_eval.schema import AnyProblemSet, RunRecord, Sample, Selection, Selections
from rlfr_vlm.env_settings import Settings
from rlfr_vlm.files import JsonObject
from rlfr_vlm.judging.known_cases import KnownCases
from rlfr_vlm.judging.prompt import Messages

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.text import AnyBenchmark
    from rlfr_eval.run.folder import RunStore

BenchmarkT = TypeVar("BenchmarkT", bound="AnyBenchmark[Any]", covariant=True)
DataT = TypeVar("DataT", bound=AnyProblemSet, covariant=True)


@dataclass(frozen=True)
class OpenBenchmark(Generic[BenchmarkT, DataT]):
    """A benchmark with the problems of its file."""

    benchmark: BenchmarkT
    data: DataT

    def select(self, limit: int | None) -> "Selection[BenchmarkT, Any]":
        """The problems of the first questions, or all of them when `limit` is None."""
        problems = self.data.problems
        return Selection(self.benchmark, problems if limit is None else self.data.first(limit), len(problems))


AnyOpenBenchmark = OpenBenchmark["AnyBenchmark[Any]", AnyProblemSet]


class Kind(Protocol):
    """How problems are read, answers graded, and a judge asked.

    Attributes:
        name: `kind` of run.json.
        compares_prompts: whether runs with different prompt presets may be compared.
    """

    name: ClassVar[str]
    compares_prompts: ClassVar[bool]

    @staticmethod
    def build(spec: JsonObject, where: str) -> "AnyBenchmark[Any]":
        """The benchmark of a run's record; `where` names it in messages."""

    def open(self, benchmark: Any, data_dir: Path) -> AnyOpenBenchmark:
        """Read the problems that a model is to answer, and check them against the lock file.

        Raises:
            UserError: they are missing, or are not the expected ones.
        """

    def reopen(self, benchmark: Any, data_dir: Path, moved: bool) -> AnyOpenBenchmark:
        """Read the problems of a benchmark that was measured before.

        Args:
            moved: whether `data_dir` replaces the folder of the record.
        """

    def grade(
        self, store: "RunStore", selections: Selections, on_graded: Callable[[int], object] = lambda count: None
    ) -> None:
        """Append verdicts by rules on answers that have none; `on_graded` gets the number of answers of each batch."""

    def prompts(self, selections: Selections, samples: Sequence[Sample]) -> Iterator[Messages]:
        """The conversations in which a judge would be asked about answers."""

    def decide(self, selections: Selections) -> Decide:
        """How a judge decides an answer."""

    def known_cases(self, selections: Selections) -> KnownCases | None:
        """The cases that a judge is checked with; None for the common ones."""


def kind_class(record: RunRecord) -> type[Kind]:
    """The kind of a run, by its record."""
    from rlfr_eval.kinds.text import TextKind
    from rlfr_eval.kinds.vlm import VlmKind

    return VlmKind if record.get("kind") == VlmKind.name else TextKind


def recorded_benchmarks(record: RunRecord, folder: Path) -> Selections:
    """The benchmarks of a run as they were, without their problems."""
    build = kind_class(record).build
    return {
        name: Selection(build(spec, f"{folder}/run.json, {name}")) for name, spec in record.get("specs", {}).items()
    }


@contextmanager
def open_kind(record: RunRecord, settings: Settings) -> Iterator[Kind]:
    """Yield the kind of a run; VLMEvalKit's process runs inside the context.

    Raises:
        UserError: VLMEvalKit is needed and not installed.
    """
    from rlfr_eval.kinds.text import TextKind
    from rlfr_eval.kinds.vlm import VlmKind

    if kind_class(record) is not VlmKind:
        yield TextKind()
        return
    from rlfr_eval.vlmeval.worker_process import WorkerProcess, interpreter
    from rlfr_vlm.files import cache_folder

    with WorkerProcess(interpreter(settings), cache_folder("logs") / "vlmeval.log") as worker:
        yield VlmKind(worker)
