"""Read a text benchmark's problems from a local file and check their content hash."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from rlfr_eval.benchmarks.lockfile import read_lock
from rlfr_eval.benchmarks.text import Benchmark, Source
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import gold_list
from rlfr_vlm.grading.gym import ENTRY_COLUMN, generate, parse_name
from rlfr_vlm.provenance import short_hash

DEFAULT_PROBLEMS = 500  # of a reasoning-gym task whose name has no size


@dataclass(frozen=True)
class Problem:
    """A problem of a text benchmark.

    Attributes:
        golds: acceptable answers.
        options: texts of the options of a multiple-choice question, in order.
        entry: of a reasoning-gym task, from which its scorer decides; empty for other problems.
    """

    id: str
    question: str
    golds: tuple[str, ...]
    options: tuple[str, ...] = ()
    entry: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """Text problems have no images."""
        return ()

    @property
    def question_id(self) -> str:
        """Each text problem is a question."""
        return self.id

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

    def first(self, limit: int) -> tuple[Problem, ...]:
        """The first problems."""
        return self.problems[:limit]


def content_hash(problems: Sequence[Problem]) -> str:
    """Return a hash of questions, golds, options and entries in order; ids and column names do not count."""
    sha256 = hashlib.sha256()
    for problem in problems:
        entry = [problem.entry] if problem.entry else []
        sha256.update(json.dumps([problem.question, problem.golds, problem.options, *entry]).encode() + b"\n")
    return sha256.hexdigest()


def rows_file(benchmark: Benchmark, data_dir: Path) -> Path:
    """Return the file with a benchmark's rows."""
    return Path(benchmark.path) if benchmark.path else data_dir / f"{benchmark.name}.jsonl"


def read_problems(benchmark: Benchmark, data_dir: Path, check: bool = True) -> ProblemSet:
    """Read the benchmark's own file, or `DATA_DIR/NAME.jsonl`: rows with problem, answer, and maybe id and options.

    Args:
        check: whether the hash must match the lock file or, without an entry there, the benchmark's file.

    Raises:
        UserError: the file is missing, a row is invalid, or the number or the hash of the problems is wrong.
    """
    if benchmark.task:
        generated = _generated_problems(benchmark)
        return ProblemSet(generated, content_hash(generated))
    path = rows_file(benchmark, data_dir)
    rows = _own_rows(path, benchmark.source) if benchmark.path else _stored_rows(path, benchmark)
    problems = tuple(_problem(row, where, f"{benchmark.name}-{index}") for index, (where, row) in enumerate(rows))
    if benchmark.n and len(problems) != benchmark.n:
        raise UserError(
            f"{path} has {len(problems)} problems; {benchmark.title} has {benchmark.n}. "
            f"{'Set n to its number.' if benchmark.path else 'Move it away and fetch it again.'}"
        )
    if not problems:
        raise UserError(f"{path} has no problems.")
    most_common_id, count = Counter(problem.id for problem in problems).most_common(1)[0]
    if count > 1:
        raise UserError(f"{path} has the id {most_common_id!r} {count} times; answers are kept by id.")
    sha256 = content_hash(problems)
    locked = None if benchmark.path else read_lock(data_dir).get(benchmark.name)
    expected = locked["content_sha256"] if locked else benchmark.content_sha256
    if check and expected and expected != sha256:
        if benchmark.path:
            raise UserError(
                f"{path} has the hash {sha256[:12]}, and content_sha256 of {benchmark.name} is {expected[:12]}. Give "
                "the file that it was written for, or another content_sha256."
            )
        what = "has changed since it was locked" if locked else f"is not the copy of {benchmark.title} that is known"
        accept = f"rlfr-eval fetch {benchmark.name} --data-dir {data_dir} --relock"
        raise UserError(
            f"{path} {what}: its hash is {sha256[:12]}, expected is {expected[:12]}. Move it away and fetch it again, "
            f"or accept it with `{accept}`."
        )
    return ProblemSet(problems, sha256)


def _generated_problems(benchmark: Benchmark) -> tuple[Problem, ...]:
    """Return the held-out problems of a reasoning-gym task, which no run trains on."""
    limit = None if parse_name(benchmark.task).size else DEFAULT_PROBLEMS
    rows = generate(benchmark.task, "test", limit)
    return tuple(
        Problem(f"{benchmark.name}-{index}", row["prompt"][0]["content"], (row["answer"],), entry=row[ENTRY_COLUMN])
        for index, row in enumerate(rows)
    )


def _stored_rows(path: Path, benchmark: Benchmark) -> Iterator[tuple[str, object]]:
    """Yield the rows of `NAME.jsonl`, each with its place for messages."""
    if not path.is_file():
        fetch = f"Get it with `rlfr-eval fetch {benchmark.name} --data-dir {path.parent}`"
        mend = fetch if benchmark.source.repo else "Set `path` in the benchmark's TOML file"
        raise UserError(
            f"{path} is missing. {mend}, or name the folder that has it with --data-dir or RLFR_EVAL_DATA."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            where = f"Line {number} of {path}"
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is not JSON: {error}.") from None


def _own_rows(path: Path, columns: Source) -> Iterator[tuple[str, object]]:
    """Yield the rows of a user's file with the columns of `NAME.jsonl`, each with its place for messages."""
    from rlfr_vlm.data.read import read_dataset
    from rlfr_vlm.data.rows import BadRow

    if not path.is_file():
        raise UserError(f"{path} is no file. `path` of a benchmark is relative to its TOML file.")
    data = read_dataset(str(path))
    for number, stored in enumerate(data.dataset, 1):
        where = f"Row {number} of {path}"
        try:
            row = data.row(stored)
        except BadRow as error:
            raise UserError(f"{where}: {error}.") from None
        if isinstance(row, dict):
            known = {key: row[key] for key in ("id", "options") if row.get(key) is not None}
            row = {**known, **with_known_columns(row, columns, where)}
        yield where, row


def with_known_columns(row: JsonObject, columns: Source, where: str) -> JsonObject:
    """Return a row with the columns problem and answer, and with id and options if `columns` names them.

    Raises:
        UserError: a column that `columns` names is missing.
    """
    known = {
        key: _column(row, column, where)
        for key in ("id", "problem", "answer", "options")
        if (column := getattr(columns, key))
    }
    return known | ({"id": str(known["id"])} if "id" in known else {})


def _column(row: JsonObject, column: str, where: str) -> Any:
    """Return the value of a column, which may be a nested `a.b`; of a chat, the user's text."""
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(
                f"{where} has no column {column!r}.{nearest(column, row)} It has {', '.join(row)}. The columns are "
                "named under [source] of a benchmark's TOML file."
            )
        value = value[part]
    if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
        return "\n".join(message["content"] for message in value if message["role"] == "user")
    return value


def _problem(row: object, where: str, default_id: str) -> Problem:
    """Validate one row."""
    missing = [key for key in ("problem", "answer") if not isinstance(row, dict) or row.get(key) is None]
    if missing or not isinstance(row, dict):
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
