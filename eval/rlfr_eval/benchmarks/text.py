"""Benchmark files: one TOML each, read strictly; and suites of them."""

import dataclasses
import re
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from rlfr_eval.benchmarks.text_presets import Preset, preset
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading import Extraction, Item, extract_item

BESIDE = Path(__file__).resolve().parents[1] / "benchmark_files" / "lm"  # in a wheel
IN_CHECKOUT = Path(__file__).resolve().parents[3] / "benchmarks" / "lm"
SUITES_FILE = "suites.toml"
JUDGE_POLICIES = ("never", "undecided")
NO_ANSWER = ("wrong", "undecided")
ANSWER_TYPES = ("", "option", "text")
NAME = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Source:
    """Where the rows come from.

    Attributes:
        repo: hub id of a data set, or a local folder.
        revision: commit on the hub; empty: the newest, pinned by the lock file once it is fetched.
        config, split, file: which part of it.
        id, problem, answer, options: its columns; `a.b` looks inside, a chat's user message stands for the chat.
    """

    repo: str
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
    """How responses are drawn; top_k -1 means all tokens. Sample number k has the seed `seed` + k.

    `max_tokens` 0 leaves an answer what the prompt leaves of the context; only chat servers know how.
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
        if self.samples > 1 and self.temperature == 0:
            raise UserError(
                f"{self.samples} samples at temperature 0 would all be the same answer. Set --temperature above 0, "
                "or --samples 1."
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
class AnyBenchmark(ABC):
    """What every benchmark has, of text or of images.

    Attributes:
        n: problems it has; 0: not known before it is fetched, and kept by the lock file.
        prompt: name of a preset.
        judge: `never`, or `undecided`: what rules leave undecided may be judged.
        answer_type: `option`, `text`, or empty: the grader tells from the gold answer.
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
    reference: tuple[Reference, ...] = ()

    @abstractmethod
    def body(self, problem: Any) -> dict[str, Any]:
        """The part of a request that holds the prompt of one problem."""

    @abstractmethod
    def asked(self, problem: Any) -> str:
        """What is asked, for a person to read."""

    def item(self, problem: Any, raw: str) -> Item:
        """A response as the grader takes it."""
        return Item(problem.golds, raw, None, problem.options, self.answer_type or None)

    def extract(self, problem: Any, raw: str) -> Extraction:
        """The answer in a response."""
        return extract_item(self.item(problem, raw))

    @abstractmethod
    def how_asked(self) -> dict[str, Any]:
        """Everything about the prompt that decides an answer: name, version and hash of the preset, and the like."""

    @abstractmethod
    def grading(self) -> list[Any]:
        """Everything but the answer that decides a verdict of the rules."""

    @property
    def reader(self) -> str:
        """Version of what reads a judge's replies; "" where that never changed a verdict."""
        return ""

    def more_scores(self, problems: Sequence[Any], results: Sequence[Any], rules: Sequence[Any]) -> dict[str, Any]:
        """Scores beside the accuracy, or instead of it: keys of scores.json.

        Args:
            results, rules: in the end and by rules alone, in the problems' order.
        """
        return {}

    def check_common(self) -> None:
        """Refuse values that no benchmark can have."""
        if not NAME.fullmatch(self.name):
            raise UserError(f"Benchmark name {self.name!r} must be letters, digits, `_`, `.` and `-`; it names files.")
        for key, known in (("judge", JUDGE_POLICIES), ("answer_type", ANSWER_TYPES)):
            self.check_choice(key, known)

    def check_choice(self, key: str, known: tuple[str, ...]) -> None:
        if getattr(self, key) not in known:
            raise UserError(
                f"Benchmark {self.name}: {key} is {getattr(self, key)!r}; it is {' or '.join(map(repr, known))}."
            )


@dataclass(frozen=True, kw_only=True)
class Benchmark(AnyBenchmark):
    """A benchmark of text.

    Attributes:
        prompt: name of a preset, see `prompts.py`.
        tolerance: relative, for numbers.
        free_text: whether answers may be words. Rules then call wrong only what numbers and options prove wrong; the
            rest is undecided, for a judge.
        no_answer: what a response without an answer is: `wrong`, or `undecided`.
        system_prompt: of a chat, instead of the preset's own.
        content_sha256: of the problems as `problems.content_hash` sees them, in the copy that this file was made with.
    """

    source: Source
    prompt: str = "qwen-box"
    tolerance: float = 0.0
    no_answer: str = "wrong"
    free_text: bool = False
    content_sha256: str = ""
    system_prompt: str = ""

    @property
    def preset(self) -> Preset:
        """How it is asked."""
        return preset(self.prompt, self.system_prompt)

    def body(self, problem: Any) -> dict[str, Any]:
        return self.preset.body(problem.asked)

    def asked(self, problem: Any) -> str:
        return self.preset.text(problem.asked)

    def how_asked(self) -> dict[str, Any]:
        prompt = {"name": self.preset.name, "version": self.preset.version, "hash": self.preset.digest}
        return {"prompt": prompt, "answer_type": self.answer_type}

    def grading(self) -> list[Any]:
        return [self.tolerance, self.no_answer, self.answer_type, self.free_text]

    def __post_init__(self) -> None:
        self.check_common()
        self.check_choice("no_answer", NO_ANSWER)
        if not 0 <= self.tolerance < 1:
            raise UserError(
                f"Benchmark {self.name}: tolerance is {self.tolerance}; it is relative, from 0 to below 1."
            )
        if not self.preset.is_chat and not self.sampling.max_tokens:
            raise UserError(f"Benchmark {self.name}: max_tokens 0 goes with chat presets only; {self.prompt} is raw.")


def build(cls: type, table: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a TOML table.

    Raises:
        UserError: an unknown or missing key, or a value of another type.
    """
    if not isinstance(table, dict):
        raise UserError(f"{where} is {table!r}; it must be a table of keys.")
    known = {option.name: option for option in dataclasses.fields(cls)}
    for key in table:
        if key not in known:
            raise UserError(f"{where} has the unknown key {key!r}.{nearest(key, known)}")
    values = dict(table)
    nested = {"source": Source, "sampling": Sampling}
    for key, value in table.items():
        if key in nested and issubclass(cls, AnyBenchmark):
            values[key] = build(nested[key], value, f"{where}, [{key}]")
        elif key == "reference" and isinstance(value, list | tuple):
            values[key] = tuple(build(Reference, row, f"{where}, [[reference]]") for row in value)
        elif key == "reference":
            raise UserError(f"{where}: reference is {value!r}; write each as a [[reference]] table.")
        elif known[key].type is float and type(value) is int:
            values[key] = float(value)
        elif not _fits(value, wanted := known[key].type):
            kind = (
                wanted.__name__
                if isinstance(wanted, type) and not get_args(wanted)
                else str(wanted).replace("tuple[str, ...]", "list[str]")
            )
            raise UserError(f"{where}: {key} is {value!r}, a {type(value).__name__}; it must be a {kind}.")
    try:
        return cls(**values)
    except TypeError as error:
        raise UserError(f"{where} is incomplete: {str(error).split(') ')[-1]}.") from None


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of a type, down to what tables and lists hold."""
    parts = get_args(wanted)
    if type(value) is not (get_origin(wanted) or wanted):
        return False
    if isinstance(value, dict):
        return all(_fits(key, parts[0]) and _fits(one, parts[1]) for key, one in value.items())
    return not parts or all(_fits(one, parts[0]) for one in value)


def load_benchmark(path: Path) -> Benchmark:
    """Read one benchmark file."""
    return build(Benchmark, read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None


def folder() -> Path:
    """Where the shipped benchmark files are."""
    return IN_CHECKOUT if IN_CHECKOUT.is_dir() else BESIDE


def shipped() -> dict[str, Benchmark]:
    """The shipped benchmarks by name."""
    paths = sorted(path for path in folder().glob("*.toml") if path.name != SUITES_FILE)
    return {benchmark.name: benchmark for benchmark in map(load_benchmark, paths)}


def suites() -> dict[str, dict[str, dict[str, Any]]]:
    """Suite -> benchmark -> what the suite sets differently: `prompt`, and keys of `Sampling`."""
    return read_toml(folder() / SUITES_FILE)


def resolve(names: Iterable[str]) -> list[Benchmark]:
    """Benchmarks of suites, names and paths of TOML files, each once.

    Raises:
        UserError: an unknown name, or a benchmark asked for in two ways.
    """
    known, groups = shipped(), suites()
    found: dict[str, Benchmark] = {}
    for name in names:
        if name in groups:
            chosen = [changed(known[each], **changes) for each, changes in groups[name].items()]
        elif name in known:
            chosen = [known[name]]
        elif name.endswith(".toml"):
            chosen = [load_benchmark(Path(name))]
        else:
            everything = [*groups, *known]
            raise UserError(f"Unknown benchmark {name!r}.{nearest(name, everything)} Known: {', '.join(everything)}.")
        for benchmark in chosen:
            if found.setdefault(benchmark.name, benchmark) != benchmark:
                raise UserError(f"{benchmark.name} is asked for with two settings. Run them into two folders.")
    return list(found.values())


def changed(benchmark: AnyBenchmark, **changes: Any) -> Any:
    """The benchmark with another prompt or sampling; None changes nothing."""
    changes = {key: value for key, value in changes.items() if value is not None}
    of_sampling = {option.name for option in dataclasses.fields(Sampling)} & set(changes)
    sampling = dataclasses.replace(benchmark.sampling, **{key: changes.pop(key) for key in of_sampling})
    return dataclasses.replace(benchmark, sampling=sampling, **changes)
