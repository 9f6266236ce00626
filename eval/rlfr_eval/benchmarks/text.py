"""Text benchmarks and suites, read from TOML files with strict checks; the base class of all benchmarks."""

import dataclasses
import re
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin

from rlfr_eval.benchmarks.text_presets import Preset, preset
from rlfr_eval.schema import AnyProblem
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonMapping, JsonObject
from rlfr_vlm.grading import Extraction, Item, extract_item
from rlfr_vlm.grading.gym import PREFIX, is_gym_name
from rlfr_vlm.provenance import installed_version

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from rlfr_eval.benchmarks.text_problems import Problem
    from rlfr_eval.score.metrics import ProblemResult

FOLDER_IN_WHEEL = Path(__file__).resolve().parents[1] / "benchmark_files" / "lm"
FOLDER_IN_CHECKOUT = Path(__file__).resolve().parents[3] / "benchmarks" / "lm"
SUITES_FILE = "suites.toml"
JUDGE_POLICIES = ("never", "undecided")
NO_ANSWER_POLICIES = ("wrong", "undecided")
ROW_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
ANSWER_TYPES = ("", "option", "text")
NAME_PATTERN = re.compile(r"[\w.-]+", re.ASCII)


ProblemT = TypeVar("ProblemT", bound=AnyProblem, contravariant=True)
BenchmarkT = TypeVar("BenchmarkT", bound="AnyBenchmark[Any]")
TableT = TypeVar("TableT", bound="DataclassInstance")


@dataclass(frozen=True)
class Source:
    """The data set that a benchmark's rows come from.

    Attributes:
        repo: hub id of a data set, or a local folder; empty: the rows are in the data folder, or in `path`.
        revision: commit on the hub; empty: the newest, which the lock file pins when it is fetched.
        config, split, file: arguments of `load_dataset`.
        id, problem, answer, options: columns; `a.b` selects a nested value, and a chat gives its user message.
    """

    repo: str = ""
    revision: str = ""
    config: str = ""
    split: str = "test"
    file: str = ""
    id: str = ""
    problem: str = "problem"
    answer: str = "answer"
    options: str = ""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of the answers.

    Attributes:
        top_k: -1 for all tokens.
        max_tokens: tokens of an answer; 0 for the rest of the context, which only chat requests support.
        seed: sample k uses `seed` + k.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = -1
    max_tokens: int = 8192
    samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            not 0 <= self.temperature < float("inf")
            or not 0 < self.top_p <= 1
            or self.max_tokens < 0
            or self.samples < 1
        ):
            raise UserError(
                f"temperature {self.temperature}, top_p {self.top_p}, max_tokens {self.max_tokens} and samples "
                f"{self.samples} do not go together: temperature >= 0, 0 < top_p <= 1, max_tokens >= 0, samples >= 1."
            )
        if self.samples > 1 and (self.temperature == 0 or self.top_k == 1):
            greedy = "temperature 0" if self.temperature == 0 else "top_k 1"
            change = "--temperature above 0" if self.temperature == 0 else "--top-k -1, and a temperature"
            raise UserError(
                f"{self.samples} samples at {greedy} would all be the same answer. Set {change}, or --samples 1."
            )


@dataclass(frozen=True)
class Reference:
    """A published value, in percent."""

    model: str
    method: str
    value: float
    source: str
    metric: str = "pass@1"


@dataclass(frozen=True, kw_only=True)
class AnyBenchmark(ABC, Generic[ProblemT]):
    """Base class of text and multimodal benchmarks.

    Attributes:
        n: number of problems; 0 if it is unknown before fetching.
        prompt: name of a preset.
        judge: `never`, or `undecided`: a judge may decide the answers that rules leave undecided.
        answer_type: `option`, `text`, or empty: inferred from the gold answer.
        tolerance: relative tolerance for numbers.
        no_answer: verdict on a response without an answer: `wrong` or `undecided`.
        caution: what is wrong with the data; a note beside each score.
        free_text: whether answers may be words. Rules then give `wrong` only for numbers and options; other answers
            that differ from the gold are undecided.
    """

    name: str
    title: str
    licence: str
    n: int
    prompt: str
    sampling: Sampling = field(default_factory=Sampling)
    judge: str = "undecided"
    answer_type: str = ""
    about: str = ""
    caution: str = ""
    reference: tuple[Reference, ...] = ()
    tolerance: float = 0.0
    no_answer: str = "wrong"
    free_text: bool = False

    @abstractmethod
    def body(self, problem: ProblemT) -> JsonObject:
        """Return the part of a request that holds a problem's prompt."""

    @abstractmethod
    def prompt_text(self, problem: ProblemT) -> str:
        """Return a problem's whole prompt as text for display."""

    def item(self, problem: ProblemT, raw: str) -> Item:
        """Return a response as the grader's input."""
        return Item(problem.golds, raw, None, problem.options, self.answer_type or None)

    def extract(self, problem: ProblemT, raw: str) -> Extraction:
        """Extract the answer from a response."""
        return extract_item(self.item(problem, raw))

    @abstractmethod
    def prompt_config(self) -> JsonObject:
        """Return the settings of the prompt that decide an answer: name, version and hash of the preset, etc."""

    @abstractmethod
    def grading(self) -> list[object]:
        """Return the settings that decide a verdict by rules, apart from the answer."""

    @property
    def reader(self) -> str:
        """Version of the judge-reply parser; part of the verdict key ("" if unversioned)."""
        return ""

    def extra_scores(
        self, problems: Sequence[ProblemT], results: "Sequence[ProblemResult]", rules: "Sequence[ProblemResult]"
    ) -> JsonObject:
        """Return further keys of scores.json, which may replace the accuracy.

        Args:
            results: final results in the problems' order.
            rules: results by rules alone in the problems' order.
        """
        return {"notes": [self.caution]} if self.caution else {}

    def check_common(self) -> None:
        """Validate the fields that all benchmarks have.

        Raises:
            UserError: a value is not allowed.
        """
        if not NAME_PATTERN.fullmatch(self.name):
            raise UserError(f"Benchmark name {self.name!r} must be letters, digits, `_`, `.` and `-`; it names files.")
        for key, allowed in (("judge", JUDGE_POLICIES), ("answer_type", ANSWER_TYPES)):
            self.check_choice(key, allowed)

    def check_choice(self, key: str, allowed: tuple[str, ...]) -> None:
        """Raise a UserError if the field `key` has none of the allowed values."""
        if getattr(self, key) not in allowed:
            raise UserError(
                f"Benchmark {self.name}: {key} is {getattr(self, key)!r}; it is {' or '.join(map(repr, allowed))}."
            )


@dataclass(frozen=True, kw_only=True)
class Benchmark(AnyBenchmark["Problem"]):
    """A text benchmark.

    Attributes:
        path: a file with the rows, in any format that training data has; empty: NAME.jsonl in the data folder.
        source: where the rows of NAME.jsonl come from, and the columns of either file.
        prompt: name of a preset in `text_presets.py`.
        system_prompt: system message that replaces the preset's; chat presets only.
        content_sha256: `content_hash` of the problems when the benchmark's file was written.
        task: a task of reasoning-gym, such as `reasoning_gym:chain_sum?size=200`, whose held-out rows are generated
            and whose own scorer decides; replaces `path` and `source`.
    """

    path: str = ""
    source: Source = field(default_factory=Source)
    prompt: str = "qwen-box"
    content_sha256: str = ""
    system_prompt: str = ""
    task: str = ""

    @property
    def preset(self) -> Preset:
        """The prompt preset, with the benchmark's system prompt if it has one."""
        return preset(self.prompt, self.system_prompt)

    def body(self, problem: "Problem") -> JsonObject:
        return self.preset.body(problem.text)

    def prompt_text(self, problem: "Problem") -> str:
        return self.preset.text(problem.text)

    def prompt_config(self) -> JsonObject:
        prompt = {"name": self.preset.name, "version": self.preset.version, "hash": self.preset.digest}
        return {"prompt": prompt, "answer_type": self.answer_type}

    def item(self, problem: "Problem", raw: str) -> Item:
        return Item(problem.golds, raw, None, problem.options, self.answer_type or None, problem.entry)

    def grading(self) -> list[object]:
        scorer = [f"reasoning-gym {installed_version('reasoning-gym')}"] if self.task else []
        return [self.tolerance, self.no_answer, self.answer_type, self.free_text, *scorer]

    def __post_init__(self) -> None:
        self.check_common()
        self.check_choice("no_answer", NO_ANSWER_POLICIES)
        if not 0 <= self.tolerance < 1:
            raise UserError(
                f"Benchmark {self.name}: tolerance is {self.tolerance}; it is relative, from 0 to below 1."
            )
        if not self.preset.is_chat and not self.sampling.max_tokens:
            raise UserError(f"Benchmark {self.name}: max_tokens 0 goes with chat presets only; {self.prompt} is raw.")
        if self.task and not is_gym_name(self.task):
            raise UserError(f"Benchmark {self.name}: task is {self.task!r}; it is {PREFIX}TASK.")
        if self.task and (self.path or self.source.repo):
            raise UserError(f"Benchmark {self.name} has both a task and a file of rows. Leave one of them out.")


def build(cls: type[TableT], table: JsonMapping, where: str) -> TableT:
    """Build a dataclass from a TOML table.

    Args:
        where: file and table, for messages.

    Raises:
        UserError: an unknown or missing key, or a value of the wrong type.
    """
    if not isinstance(table, dict):
        raise UserError(f"{where} is {table!r}; it must be a table of keys.")
    fields = {option.name: option for option in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise UserError(f"{where} has the unknown key {key!r}.{nearest(key, fields)}")
    values = dict(table)
    nested: dict[str, type[Source] | type[Sampling]] = {"source": Source, "sampling": Sampling}
    for key, value in table.items():
        if key in nested and issubclass(cls, AnyBenchmark):
            values[key] = build(nested[key], value, f"{where}, [{key}]")
        elif key == "reference" and isinstance(value, list | tuple):
            values[key] = tuple(build(Reference, row, f"{where}, [[reference]]") for row in value)
        elif key == "reference":
            raise UserError(f"{where}: reference is {value!r}; write each as a [[reference]] table.")
        elif fields[key].type is float and type(value) is int:
            values[key] = float(value)
        elif not _has_type(value, expected := fields[key].type):
            type_name = (
                expected.__name__
                if isinstance(expected, type) and not get_args(expected)
                else str(expected).replace("tuple[str, ...]", "list[str]")
            )
            raise UserError(f"{where}: {key} is {value!r}, a {type(value).__name__}; it must be a {type_name}.")
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{where} is incomplete: {str(error).split(') ')[-1]}.") from None


def _has_type(value: object, expected: object) -> bool:
    """Return whether a value has a type, including the elements of tables and lists."""
    parts = get_args(expected)
    if type(value) is not (get_origin(expected) or expected):
        return False
    if isinstance(value, dict):
        return all(_has_type(key, parts[0]) and _has_type(element, parts[1]) for key, element in value.items())
    if isinstance(value, list | tuple):
        return not parts or all(_has_type(element, parts[0]) for element in value)
    return True


def load_benchmark(path: Path) -> Benchmark:
    """Read one benchmark file. Name, title, licence and number of problems may be left out.

    Raises:
        UserError: a value is not allowed, or the file does not say where its rows are.
    """
    table = read_toml(path)
    name = table.get("name", _name_of(path))
    benchmark = build(Benchmark, {"name": name, "title": name, "licence": "your own", "n": 0, **table}, str(path))
    if not benchmark.path:
        return benchmark
    rows = path.parent / Path(benchmark.path).expanduser()
    return dataclasses.replace(benchmark, path=str(rows.resolve()))


def _name_of(path: Path) -> str:
    """Return the name of a benchmark whose file has this path."""
    return re.sub(r"[^\w.-]+", "-", path.stem, flags=re.ASCII)


def read_toml(path: Path) -> JsonObject:
    """Read a TOML file.

    Raises:
        UserError: the file cannot be read or parsed.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


def folder() -> Path:
    """Return the folder of the shipped benchmark files."""
    return FOLDER_IN_CHECKOUT if FOLDER_IN_CHECKOUT.is_dir() else FOLDER_IN_WHEEL


def shipped() -> dict[str, Benchmark]:
    """Return the shipped benchmarks by name."""
    paths = sorted(path for path in folder().glob("*.toml") if path.name != SUITES_FILE)
    return {benchmark.name: benchmark for benchmark in map(load_benchmark, paths)}


def suites() -> dict[str, dict[str, JsonObject]]:
    """Return suite -> benchmark -> overrides of `prompt` and of the fields of `Sampling`."""
    return read_toml(folder() / SUITES_FILE)


def resolve(names: Iterable[str]) -> list[Benchmark]:
    """Return the benchmarks named by suites, names, tasks of reasoning-gym and paths of TOML or data files, each once.

    Raises:
        UserError: an unknown name, or a benchmark requested with two different settings.
    """
    benchmarks, suite_overrides = shipped(), suites()
    resolved: dict[str, Benchmark] = {}
    for name in names:
        if name in suite_overrides:
            selected = [
                with_overrides(benchmarks[member], **overrides) for member, overrides in suite_overrides[name].items()
            ]
        elif name in benchmarks:
            selected = [benchmarks[name]]
        elif is_gym_name(name):
            selected = [_of_task(name)]
        elif name.endswith(".toml"):
            selected = [load_benchmark(Path(name))]
        elif name.endswith(ROW_FILES):
            path, label = Path(name).expanduser(), _name_of(Path(name))
            selected = [Benchmark(name=label, title=label, licence="your own", n=0, path=str(path.resolve()))]
        else:
            all_names = [*suite_overrides, *benchmarks]
            raise UserError(
                f"Unknown benchmark {name!r}.{nearest(name, all_names)} Known: {', '.join(all_names)}, {PREFIX}TASK."
            )
        for benchmark in selected:
            if resolved.setdefault(benchmark.name, benchmark) != benchmark:
                raise UserError(f"{benchmark.name} is asked for with two settings. Run them into two folders.")
    return list(resolved.values())


def _of_task(name: str) -> Benchmark:
    """Return the benchmark of a reasoning-gym task: asked as in training, decided by the task's scorer alone."""
    label = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-")
    return Benchmark(name=label, title=name, licence="Apache-2.0", n=0, task=name, prompt="bare-chat", judge="never")


def with_overrides(benchmark: BenchmarkT, **overrides: Any) -> BenchmarkT:
    """Return the benchmark with other values of its fields or of its sampling's fields; None changes nothing."""
    overrides = {key: value for key, value in overrides.items() if value is not None}
    sampling_keys = {option.name for option in dataclasses.fields(Sampling)} & set(overrides)
    sampling = dataclasses.replace(benchmark.sampling, **{key: overrides.pop(key) for key in sampling_keys})
    return dataclasses.replace(benchmark, sampling=sampling, **overrides)
