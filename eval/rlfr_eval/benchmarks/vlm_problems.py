"""Read a multimodal benchmark's problems from its TSV file through VLMEvalKit."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_eval.benchmarks.lockfile import read_lock
from rlfr_eval.benchmarks.vlm import VlmBenchmark
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, cache_folder
from rlfr_vlm.provenance import short_hash


@dataclass(frozen=True, slots=True)
class VlmProblem:
    """A question about images.

    Attributes:
        parts: parts of VLMEvalKit's prompt in order: `{"text": ...}` or `{"image": file}`.
        letters: option letter -> text.
        fields: column -> value for the columns that results are broken down by.
        group: id of the first row of the same question, in sets whose questions have several rows; else empty.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    parts: tuple[Mapping[str, str], ...]
    letters: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str | None] = field(default_factory=dict)
    group: str = ""

    @property
    def question_id(self) -> str:
        """Id of the question that this row belongs to: of its first row."""
        return self.group or self.id

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(self.letters.values())

    @property
    def text(self) -> str:
        """The text of VLMEvalKit's prompt."""
        return "".join(part["text"] for part in self.parts if "text" in part)

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(part["image"] for part in self.parts if "image" in part)

    @property
    def question_with_options(self) -> str:
        """The question with one line per option."""
        return "\n".join([self.question, *(f"{letter}. {text}" for letter, text in self.letters.items())])


@dataclass(frozen=True)
class VlmProblemSet:
    """All problems of a file with the file's hash.

    Attributes:
        family: VLMEvalKit's class of the data set, which decides how answers are scored.
        without_image: number of rows without an image, which VLMEvalKit drops.
        grouping: how rows form questions: `circular`, `pairs`, or "" where each row is a question.
    """

    problems: tuple[VlmProblem, ...]
    md5: str
    family: str
    without_image: int = 0
    grouping: str = ""

    @property
    def identity(self) -> str:
        """Hash of file and ids. Answers are stored by id, so a run depends on both."""
        return short_hash([self.md5, *(problem.id for problem in self.problems)])

    @property
    def questions(self) -> tuple[str, ...]:
        """Ids of the questions, in the order of their first rows."""
        return tuple(dict.fromkeys(problem.question_id for problem in self.problems))

    def first(self, limit: int) -> tuple[VlmProblem, ...]:
        """All rows of the first questions."""
        kept = set(self.questions[:limit])
        return tuple(problem for problem in self.problems if problem.question_id in kept)


def tsv_file(benchmark: VlmBenchmark, data_dir: Path) -> Path:
    """Return the path of the rows: the benchmark's file, else `DATA_DIR/NAME.tsv`."""
    return Path(benchmark.file).expanduser() if benchmark.file else data_dir / f"{benchmark.vlmeval}.tsv"


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, by which VLMEvalKit identifies its copies."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def check_file(benchmark: VlmBenchmark, data_dir: Path) -> tuple[Path, str]:
    """Return the benchmark's file and its MD5.

    Raises:
        UserError: the file is missing, or differs from the locked copy or, if none is locked, from VLMEvalKit's.
    """
    path = tsv_file(benchmark, data_dir)
    if not path.is_file():
        hint = (
            f" Get it with `rlfr-eval fetch --vlm {benchmark.name} --data-dir {data_dir}`, or name the folder that "
            "has it with --data-dir or LMUData."
        )
        raise UserError(f"{path} is missing." + ("" if benchmark.file else hint))
    md5 = md5_of(path)
    locked = read_lock(path.parent).get(benchmark.name, {}).get("content_sha256")
    expected = locked or benchmark.md5
    if expected and md5 != expected:
        what = "has changed since it was locked" if locked else f"is not VLMEvalKit's copy of {benchmark.title}"
        hint = " To measure it as data of your own, give it another name." if benchmark.file else ""
        raise UserError(
            f"{path} {what}: its MD5 is {md5}, expected is {expected}. Move it away and fetch it again, or accept "
            f"it with `rlfr-eval fetch --vlm {benchmark.name} --data-dir {path.parent} --relock`.{hint}"
        )
    return path, md5


def images_folder() -> Path:
    """Return the folder for unpacked images, which are named by hashes of their content."""
    return cache_folder("vlm-images")


def read_vlm_problems(
    benchmark: VlmBenchmark, data_dir: Path, worker: WorkerProcess, check: bool = True
) -> VlmProblemSet:
    """Let VLMEvalKit read a file and build its prompts.

    Args:
        check: whether the number of rows must be the benchmark's `n`.

    Raises:
        UserError: the file is missing, is not the expected copy, or cannot be used by VLMEvalKit.
    """
    path, md5 = check_file(benchmark, data_dir)
    problems: list[VlmProblem] = []
    metadata: JsonObject = {}
    replies = worker.open(benchmark.vlmeval, path.resolve(), images_folder(), list(benchmark.columns), benchmark.name)
    for reply in replies:
        if "row" in reply:
            problems.append(_problem(reply["row"]))
        else:
            metadata = reply["ok"]
    missing = [column for column in benchmark.required_columns if problems and column not in problems[0].fields]
    if missing:
        raise UserError(f"{path} has no column {' and no column '.join(missing)}; {benchmark.name} is scored by it.")
    locked = benchmark.name in read_lock(path.parent)
    if check and benchmark.n and not locked and len(problems) != benchmark.n:
        raise UserError(f"{path} has {len(problems)} rows; {benchmark.title} has {benchmark.n}.")
    return VlmProblemSet(tuple(problems), md5, metadata["family"], metadata["without_image"], metadata["grouping"])


def _problem(row: JsonObject) -> VlmProblem:
    parts = tuple(row["parts"])
    return VlmProblem(row["id"], row["question"], (row["answer"],), parts, row["options"], row["fields"], row["group"])
