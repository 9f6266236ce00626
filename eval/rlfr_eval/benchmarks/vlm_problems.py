"""The problems of a multimodal benchmark, as VLMEvalKit reads them from its TSV file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.lockfile import read_lock
from rlfr_eval.benchmarks.vlm import VlmBenchmark
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_root
from rlfr_vlm.provenance import short_hash


@dataclass(frozen=True, slots=True)
class VlmProblem:
    """One question about images.

    Attributes:
        parts: of VLMEvalKit's prompt, in order: `{"text": ...}` and `{"image": file}`.
        letters: option letter -> text.
        fields: values of the columns that results are broken down by.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    parts: tuple[Mapping[str, str], ...]
    letters: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(self.letters.values())

    @property
    def text(self) -> str:
        """The text of VLMEvalKit's prompt."""
        return "".join(part["text"] for part in self.parts if "text" in part)

    asked = text

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(part["image"] for part in self.parts if "image" in part)

    @property
    def with_options(self) -> str:
        """The question with its options below."""
        return "\n".join([self.question, *(f"{letter}. {text}" for letter, text in self.letters.items())])


@dataclass(frozen=True)
class VlmProblemSet:
    """All problems of a file, with the file's hash.

    Attributes:
        family: VLMEvalKit's class, which decides how answers are scored.
        without_image: rows that VLMEvalKit leaves out.
    """

    problems: tuple[VlmProblem, ...]
    md5: str
    family: str
    without_image: int = 0

    @property
    def identity(self) -> str:
        """Hash of file and ids: answers are kept by id, so a run is tied to both."""
        return short_hash([self.md5, *(problem.id for problem in self.problems)])


def tsv_file(benchmark: VlmBenchmark, data_dir: Path) -> Path:
    """Where the rows are: the file that the benchmark names, else `DATA_DIR/NAME.tsv`."""
    return Path(benchmark.file).expanduser() if benchmark.file else data_dir / f"{benchmark.vlmeval}.tsv"


def md5_of(path: Path) -> str:
    """MD5 of a file, as VLMEvalKit names its copies."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def check_file(benchmark: VlmBenchmark, data_dir: Path) -> tuple[Path, str]:
    """The file and its MD5; a file that is there is used as it is, or refused, never replaced.

    Raises:
        UserError: it is missing, or it is not the copy that VLMEvalKit names and nobody has accepted it.
    """
    path = tsv_file(benchmark, data_dir)
    if not path.is_file():
        get = (
            f" Get it with `rlfr-eval fetch --vlm {benchmark.name} --data-dir {data_dir}`, or name the folder that "
            "has it with --data-dir or LMUData."
        )
        raise UserError(f"{path} is missing." + ("" if benchmark.file else get))
    found = md5_of(path)
    locked = read_lock(path.parent).get(benchmark.name, {}).get("content_sha256")
    expected = locked or benchmark.md5
    if expected and found != expected:
        what = "has changed since it was locked" if locked else f"is not VLMEvalKit's copy of {benchmark.title}"
        other = " To measure it as data of your own, give it another name." if benchmark.file else ""
        raise UserError(
            f"{path} {what}: its MD5 is {found}, expected is {expected}. Move it away and fetch it again, or accept "
            f"it with `rlfr-eval fetch --vlm {benchmark.name} --data-dir {path.parent} --relock`.{other}"
        )
    return path, found


def images_folder() -> Path:
    """Where images are unpacked to; their names are hashes of their content."""
    return cache_root() / "vlm-images"


def read_vlm_problems(
    benchmark: VlmBenchmark, data_dir: Path, worker: WorkerProcess, check: bool = True
) -> VlmProblemSet:
    """Have VLMEvalKit read a file and build its prompts.

    Args:
        check: whether the number of rows must be the one that the benchmark's file says.

    Raises:
        UserError: no such file, another one than expected, or one that VLMEvalKit cannot use.
    """
    path, found = check_file(benchmark, data_dir)
    problems: list[VlmProblem] = []
    told: dict[str, Any] = {}
    opened = worker.open(benchmark.vlmeval, path.resolve(), images_folder(), list(benchmark.columns), benchmark.name)
    for reply in opened:
        if "row" in reply:
            problems.append(_problem(reply["row"]))
        else:
            told = reply["ok"]
    missing = [column for column in benchmark.needed if problems and column not in problems[0].fields]
    if missing:
        raise UserError(f"{path} has no column {' and no column '.join(missing)}; {benchmark.name} is scored by it.")
    locked = benchmark.name in read_lock(path.parent)
    if check and benchmark.n and not locked and len(problems) != benchmark.n:
        raise UserError(f"{path} has {len(problems)} rows; {benchmark.title} has {benchmark.n}.")
    return VlmProblemSet(tuple(problems), found, told["family"], told["without_image"])


def _problem(row: dict[str, Any]) -> VlmProblem:
    parts = tuple(row["parts"])
    return VlmProblem(row["id"], row["question"], (row["answer"],), parts, row["options"], row["fields"])
