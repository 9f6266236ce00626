"""The problems of a benchmark, read from its local file, and the hash that says which problems they were."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from rlfr_eval.benchmarks import Benchmark
from rlfr_eval.lockfile import read_lock
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import gold_list


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        golds: acceptable answers.
        options: texts of the options of a multiple-choice question, in order.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def asked(self) -> str:
        """The question with its options, if it has any."""
        lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.options, strict=False)]
        return "\n\n".join([self.question, "\n".join(lines)]) if lines else self.question


@dataclass(frozen=True)
class ProblemSet:
    """All problems of a benchmark's file and their hash."""

    problems: tuple[Problem, ...]
    sha256: str


def content_hash(problems: Sequence[Problem]) -> str:
    """Hash of questions, golds and options in their order; names of columns and ids do not matter."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps([problem.question, problem.golds, problem.options]).encode() + b"\n")
    return digest.hexdigest()


def read_problems(benchmark: Benchmark, data_dir: Path, check: bool = True) -> ProblemSet:
    """Read `DATA_DIR/NAME.jsonl`: rows with `problem`, `answer` and, if they like, `id` and `options`.

    Args:
        check: whether they must be what the lock file beside it says or, without one, what the benchmark's file says.

    Raises:
        UserError: no such file, a broken or incomplete row, another number of problems than the benchmark has, or
            other problems than expected.
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
    problems = tuple(_problem(line, number, path, benchmark.name) for number, line in enumerate(lines) if line.strip())
    if benchmark.n and len(problems) != benchmark.n:
        raise UserError(f"{path} has {len(problems)} problems; {benchmark.title} has {benchmark.n}. Fetch it again.")
    if not problems:
        raise UserError(f"{path} has no problems.")
    name, times = Counter(problem.id for problem in problems).most_common(1)[0]
    if times > 1:
        raise UserError(f"{path} has the id {name!r} {times} times; answers are kept by id.")
    found = content_hash(problems)
    locked = read_lock(data_dir).get(benchmark.name)
    expected = locked["content_sha256"] if locked else benchmark.content_sha256
    if check and expected and expected != found:
        what = "has changed since it was locked" if locked else f"is not the copy of {benchmark.title} that is known"
        raise UserError(
            f"{path} {what}: its hash is {found[:12]}, expected is {expected[:12]}. Fetch it again, or accept it with "
            f"`rlfr-eval fetch {benchmark.name} --data-dir {data_dir} --relock`."
        )
    return ProblemSet(problems, found)


def _problem(line: str, number: int, path: Path, name: str) -> Problem:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"Line {number + 1} of {path} is not JSON: {error}.") from None
    missing = [key for key in ("problem", "answer") if not isinstance(row, dict) or key not in row]
    if missing:
        raise UserError(f"Line {number + 1} of {path} has no {' and no '.join(missing)}.")
    golds = tuple(gold.strip() for gold in gold_list(row["answer"]))
    if not any(golds):
        raise UserError(f"Line {number + 1} of {path} has an empty answer; nothing can be graded against it.")
    options = tuple(map(str, row.get("options") or ()))
    return Problem(str(row.get("id", f"{name}-{number}")), str(row["problem"]), golds, options)
