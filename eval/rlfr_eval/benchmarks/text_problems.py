"""Read a text benchmark's problems from its local file and check their content hash."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from rlfr_eval.benchmarks.lockfile import read_lock
from rlfr_eval.benchmarks.text import Benchmark
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import gold_list
from rlfr_vlm.provenance import short_hash


@dataclass(frozen=True)
class Problem:
    """A problem of a text benchmark.

    Attributes:
        golds: acceptable answers.
        options: texts of the options of a multiple-choice question, in order.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Text problems have no images."""
        return ()

    @property
    def text(self) -> str:
        """The question with its options, if it has any."""
        lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.options, strict=False)]
        return "\n\n".join([self.question, "\n".join(lines)]) if lines else self.question


@dataclass(frozen=True)
class ProblemSet:
    """All problems of a benchmark's file with their content hash."""

    problems: tuple[Problem, ...]
    sha256: str

    @property
    def identity(self) -> str:
        """Hash of content and ids. Answers are stored by id, so a run depends on both."""
        return short_hash([self.sha256, *(problem.id for problem in self.problems)])


def content_hash(problems: Sequence[Problem]) -> str:
    """Return a hash of questions, golds and options in order; ids and column names do not count."""
    sha256 = hashlib.sha256()
    for problem in problems:
        sha256.update(json.dumps([problem.question, problem.golds, problem.options]).encode() + b"\n")
    return sha256.hexdigest()


def read_problems(benchmark: Benchmark, data_dir: Path, check: bool = True) -> ProblemSet:
    """Read `DATA_DIR/NAME.jsonl`: rows with `problem`, `answer` and optional `id` and `options`.

    Args:
        check: whether the hash must match the lock file or, without an entry there, the benchmark's file.

    Raises:
        UserError: the file is missing, a row is invalid, or the number or the hash of the problems is wrong.
    """
    path = data_dir / f"{benchmark.name}.jsonl"
    if not path.is_file():
        raise UserError(
            f"{path} is missing. Get it with `rlfr-eval fetch {benchmark.name} --data-dir {data_dir}`, or name the "
            "folder that has it with --data-dir or RLFR_EVAL_DATA."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    problems = tuple(
        _problem(line, number, path, f"{benchmark.name}-{index}") for index, (number, line) in enumerate(rows)
    )
    if benchmark.n and len(problems) != benchmark.n:
        raise UserError(
            f"{path} has {len(problems)} problems; {benchmark.title} has {benchmark.n}. "
            "Move it away and fetch it again."
        )
    if not problems:
        raise UserError(f"{path} has no problems.")
    most_common_id, count = Counter(problem.id for problem in problems).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path} has the id {most_common_id!r} {count} times; answers are kept by id.")
    sha256 = content_hash(problems)
    locked = read_lock(data_dir).get(benchmark.name)
    expected = locked["content_sha256"] if locked else benchmark.content_sha256
    if check and expected and expected != sha256:
        what = "has changed since it was locked" if locked else f"is not the copy of {benchmark.title} that is known"
        accept = f"rlfr-eval fetch {benchmark.name} --data-dir {data_dir} --relock"
        raise UserError(
            f"{path} {what}: its hash is {sha256[:12]}, expected is {expected[:12]}. Move it away and fetch it again, "
            f"or accept it with `{accept}`."
        )
    return ProblemSet(problems, sha256)


def _problem(line: str, number: int, path: Path, default_id: str) -> Problem:
    """Parse and validate one line."""
    where = f"Line {number} of {path}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}.") from None
    missing = [key for key in ("problem", "answer") if not isinstance(row, dict) or row.get(key) is None]
    if missing:
        raise UserError(f"{where} has no {' and no '.join(missing)}.")
    question, answer, options = row["problem"], row["answer"], row.get("options") or []
    if not isinstance(question, str):
        raise UserError(f"{where}: problem is {question!r}; it must be text.")
    if not isinstance(answer, str | int | float | list) or answer != answer:
        raise UserError(f"{where}: answer is {answer!r}; it must be text, a number, or a list of acceptable ones.")
    if not isinstance(options, list):
        raise UserError(f"{where}: options is {options!r}; it must be a list of texts.")
    golds = tuple(gold.strip() for gold in gold_list(answer))
    if not any(golds):
        raise UserError(f"{where} has an empty answer; nothing can be graded against it.")
    problem = Problem(str(row.get("id", default_id)), question, golds, tuple(map(str, options)))
    try:
        problem.text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where} has half of a character pair (a surrogate), which no server can be sent.") from None
    return problem
