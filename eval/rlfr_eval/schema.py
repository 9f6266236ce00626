"""Types of the rows and records of a run folder, each with one reader and one writer.

`Sample`         a line of samples.jsonl: one answer of the model
`RuleVerdict`    a line of verdicts.jsonl with `"by": "rules"`
`JudgeVerdict`   a line of verdicts.jsonl with `"by": "judge"`
`Failure`        a line of failures.jsonl: one request that failed
`RunRecord`      run.json

A key that was added after the first release is written only where it has a value, so lines of older run folders are
read and written unchanged. `Selection` is a benchmark with the problems that a command works on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar

from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Verdict
from rlfr_vlm.grading.extract import remove_reasoning
from rlfr_vlm.servers.token_counts import token_count

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.text import AnyBenchmark

SAMPLE_KEYS = frozenset(
    [
        "id",
        "benchmark",
        "problem",
        "sample",
        "config",
        "raw",
        "digest",
        "extracted",
        "how",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "seconds",
        "tries",
        "model",
        "seed",
        "time",
    ]
)
RULE_KEYS = frozenset(["id", "answer", "grading", "verdict", "reason"])
JUDGE_KEYS = frozenset(["id", "answer", "judge", "verdict", "reason"])


class AnyProblem(Protocol):
    """Members that problems of text and of images share."""

    @property
    def id(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def golds(self) -> tuple[str, ...]:
        """Acceptable answers."""

    @property
    def options(self) -> tuple[str, ...]:
        """Texts of the options of a multiple-choice question, in order."""

    @property
    def text(self) -> str:
        """The question with its options, before the preset's words are added."""

    @property
    def images(self) -> tuple[str, ...]:
        """Image files."""

    @property
    def question_id(self) -> str:
        """Id of the question; several problems may be one, which are right or wrong together."""


class AnyProblemSet(Protocol):
    """All problems of a benchmark's file."""

    @property
    def problems(self) -> tuple[AnyProblem, ...]: ...

    @property
    def identity(self) -> str:
        """Hash of content and ids: a run belongs to one identity."""

    def first(self, limit: int) -> tuple[AnyProblem, ...]:
        """The problems of the first questions; a question may have several, which are never separated."""


BenchmarkT = TypeVar("BenchmarkT", bound="AnyBenchmark[Any]", covariant=True)
ProblemT = TypeVar("ProblemT", bound=AnyProblem, covariant=True)


@dataclass(frozen=True)
class Selection(Generic[BenchmarkT, ProblemT]):
    """A benchmark with the problems that a command works on.

    Attributes:
        problems: empty where the data files are not needed.
        planned: number of problems of the whole benchmark; more than `problems` makes a result partial.
    """

    benchmark: BenchmarkT
    problems: tuple[ProblemT, ...] = ()
    planned: int = 0

    @property
    def answers(self) -> int:
        """Number of answers that the model is asked for."""
        return len(self.problems) * self.benchmark.sampling.samples


AnySelection = Selection["AnyBenchmark[Any]", AnyProblem]
Selections = Mapping[str, AnySelection]  # by the benchmark's name


def problems_by_id(selections: Mapping[str, Selection[Any, ProblemT]]) -> dict[tuple[str, str], ProblemT]:
    """(benchmark, problem id) -> problem."""
    return {(name, problem.id): problem for name, selection in selections.items() for problem in selection.problems}


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of the model.

    Attributes:
        id: "benchmark/problem/sample".
        config: hash of the model and of the way the question was asked.
        raw: the response.
        digest: hash of `raw`; verdicts belong to it.
        extracted: the final answer as it was extracted when the response arrived; None when there was none.
        how: rule that extracted it.
        finish_reason: as the server says; empty where the answer was imported and its file does not say.
        reasoning: `closed` or `unclosed` where the response has reasoning, else "".
        visible: the response without reasoning, where it has some.
        server_reasoning: reasoning that the server returned apart from the response.
        prompt: the text that the model was sent, where the answer was imported and its file has it.
    """

    id: str
    benchmark: str
    problem: str
    sample: int
    config: str
    raw: str
    digest: str
    extracted: str | None
    how: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float
    tries: int
    model: str
    seed: int
    time: float
    reasoning: str = ""
    visible: str | None = None
    server_reasoning: str = ""
    prompt: str = ""

    @classmethod
    def read(cls, row: JsonObject) -> "Sample | None":
        """The sample of a JSON line; None when keys are missing.

        Raises:
            TypeError: a value has another type.
        """
        if not row.keys() >= SAMPLE_KEYS:
            return None
        texts = ("id", "benchmark", "problem", "config", "raw", "digest", "how", "finish_reason")
        if not all(isinstance(row[key], str) for key in texts) or not isinstance(row["extracted"], str | None):
            raise TypeError("a text of the sample is none")
        if type(row["sample"]) is not int or not all(isinstance(row[key], int | float) for key in ("seconds", "time")):
            raise TypeError("a number of the sample is none")
        tokens = {key: token_count(row[key]) for key in ("prompt_tokens", "completion_tokens")}
        return cls(
            **{**{key: row[key] for key in SAMPLE_KEYS}, **tokens},
            reasoning=row.get("reasoning", ""),
            visible=row.get("visible"),
            server_reasoning=row.get("server_reasoning", ""),
            prompt=row.get("prompt", ""),
        )

    def write(self) -> JsonObject:
        """The JSON line."""
        row: JsonObject = {key: getattr(self, key) for key in self.__slots__ if key in SAMPLE_KEYS}
        if self.reasoning:
            row |= {"reasoning": self.reasoning, "visible": self.visible}
        if self.server_reasoning:
            row["server_reasoning"] = self.server_reasoning
        if self.prompt:
            row["prompt"] = self.prompt
        return row

    @property
    def prediction(self) -> str:
        """The text that is compared with the gold: the extracted answer, else the visible response."""
        if self.extracted:
            return self.extracted
        return (remove_reasoning(self.raw)[0] if self.visible is None else self.visible).strip()

    @property
    def only_reasoning(self) -> bool:
        """Whether the server put the whole response into its reasoning, although it was not cut off."""
        return not self.raw.strip() and bool(self.server_reasoning.strip()) and self.finish_reason != "length"

    def with_extraction(self, extracted: str | None, how: str) -> "Sample":
        """The same sample with another extraction, and with reasoning removed by today's rules."""
        visible = remove_reasoning(self.raw)[0]
        return replace(self, extracted=extracted, how=how, visible=None if visible == self.raw else visible)

    def without_text(self) -> "Sample":
        """The same sample without the long texts, for metrics over many answers."""
        return replace(self, raw="", visible=None, server_reasoning="", prompt="")


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """A verdict by rules.

    Attributes:
        answer: digest of the response that was graded.
        grading: hash of the grader and of the settings that decide a verdict.
        path: rule that decided.
        extracted: the final answer as this grader extracts it. For a set that VLMEvalKit scores: VLMEvalKit's.
        how: rule that extracted it; None in lines without an extraction of the grader (sets that VLMEvalKit scores,
            lines of older versions).
        points: share of full marks, where a wrong answer has some; else None.
    """

    id: str
    answer: str
    grading: str
    grader: str
    verdict: Verdict
    path: str
    reason: str
    extracted: str | None = None
    how: str | None = None
    points: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Answer and grader that the verdict belongs to."""
        return self.id, self.answer, self.grading

    @classmethod
    def read(cls, row: JsonObject) -> "RuleVerdict | None":
        """The verdict of a JSON line; None for another kind of line, or when keys are missing."""
        if row.get("by") != "rules" or not row.keys() >= RULE_KEYS:
            return None
        return cls(
            row["id"],
            row["answer"],
            row["grading"],
            row.get("grader", ""),
            Verdict(row["verdict"]),
            row.get("path", ""),
            row["reason"],
            row.get("extracted"),
            row.get("how"),
            row.get("points"),
        )

    def write(self) -> JsonObject:
        """The JSON line."""
        row: JsonObject = {
            "id": self.id,
            "by": "rules",
            "answer": self.answer,
            "grading": self.grading,
            "grader": self.grader,
            "verdict": self.verdict.value,
            "path": self.path,
            "reason": self.reason,
        }
        if self.points is not None:
            row["points"] = self.points
        if self.how is not None:
            return row | {"extracted": self.extracted, "how": self.how}
        return row if self.extracted is None else row | {"extracted": self.extracted}


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """A verdict by a judge.

    Attributes:
        answer: digest of the response that was judged.
        judge: identity of the judge.
        given: what was read from its replies, by the keys of VLMEvalKit's questions.
        reader: version of the code that read the replies, where verdicts depend on it.
        extracted: the extraction that the judge was shown.
        has_extraction: False in lines of older versions, whose judge was shown the extraction stored with the answer.
        points: share of full marks, where a wrong answer has some; else None.
    """

    id: str
    answer: str
    judge: str
    verdict: Verdict
    reason: str
    reply: str = ""
    cached: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    given: Mapping[str, str] = field(default_factory=dict)
    reader: str = ""
    extracted: str | None = None
    has_extraction: bool = True
    time: float = 0.0
    points: float | None = None

    @classmethod
    def read(cls, row: JsonObject) -> "JudgeVerdict | None":
        """The verdict of a JSON line; None for another kind of line, or when keys are missing."""
        if row.get("by") != "judge" or not row.keys() >= JUDGE_KEYS:
            return None
        return cls(
            row["id"],
            row["answer"],
            row["judge"],
            Verdict(row["verdict"]),
            row["reason"],
            row.get("reply", ""),
            row.get("cached", False),
            row.get("input_tokens", 0),
            row.get("output_tokens", 0),
            row.get("given", {}),
            row.get("reader", ""),
            row.get("extracted"),
            "extracted" in row,
            row.get("time", 0.0),
            row.get("points"),
        )

    def write(self) -> JsonObject:
        """The JSON line."""
        return {
            "id": self.id,
            "by": "judge",
            "answer": self.answer,
            **({"extracted": self.extracted} if self.has_extraction else {}),
            "judge": self.judge,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "reply": self.reply,
            "cached": self.cached,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            **({"given": dict(self.given)} if self.given else {}),
            **({"reader": self.reader} if self.reader else {}),
            **({} if self.points is None else {"points": self.points}),
            "time": self.time,
        }


AnyVerdict = RuleVerdict | JudgeVerdict


def read_verdict_line(row: JsonObject) -> AnyVerdict | None:
    """The verdict of a JSON line; None when it is not a complete verdict."""
    return RuleVerdict.read(row) or JudgeVerdict.read(row)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that failed.

    Attributes:
        id: of the sample that was asked for.
        kind: such as `time-out`.
    """

    id: str
    kind: str
    text: str
    time: float

    @classmethod
    def read(cls, row: JsonObject) -> "Failure | None":
        """The failure of a JSON line; None when it has no kind.

        Raises:
            TypeError: a value has another type.
        """
        if "kind" not in row:
            return None
        if not all(isinstance(row.get(key, ""), str) for key in ("id", "kind", "text")):
            raise TypeError("a text of the failure is none")
        return cls(row.get("id", ""), row["kind"], row.get("text", ""), row.get("time", 0.0))

    def write(self) -> JsonObject:
        """The JSON line."""
        return {"id": self.id, "kind": self.kind, "text": self.text, "time": self.time}


class Session(TypedDict):
    """One process that worked on a run."""

    command: list[str]
    started: str
    versions: dict[str, str]
    commit: str | None


class JudgeSpending(TypedDict):
    """What a judge cost in one call."""

    judge: str | None
    input_tokens: int
    output_tokens: int
    usd: float


class ImportRecord(TypedDict):
    """Where the answers to an imported benchmark are from.

    Attributes:
        tool: the tool that asked, with its version if it is known.
        files: path, name and hash of each file.
        entries: number of questions with answers in the files.
        matched: number of problems that have answers.
        listed: number of entries that were not used, and of problems without answers, by reason.
        list_file: file in the run folder that lists them.
    """

    tool: str
    files: list[JsonObject]
    entries: int
    matched: int
    listed: dict[str, int]
    list_file: str


class RunRecord(TypedDict, total=False):
    """run.json.

    Attributes:
        model: what ties answers to a model: its name, and its weights or its server.
        benchmarks: how each benchmark was asked, and the hash of its data.
        specs: the fields of each benchmark.
        limits: number of problems of the last call, None for all.
        planned: number of answers that the last call asks for.
        data_dirs: folder of each benchmark's file.
        kind: `lm` or `vlm`; absent in folders of the first versions, which hold text.
        context: length of the model's context in tokens, if the server says it.
        judges: identity of the judge in force for each benchmark, None for rules alone.
        cross_check: VLMEvalKit's own scores.
        imported: where the answers to a benchmark are from that another tool asked for.
    """

    format: int
    model: JsonObject
    benchmarks: dict[str, JsonObject]
    specs: dict[str, JsonObject]
    limits: dict[str, int | None]
    planned: dict[str, int]
    data_dirs: dict[str, str]
    base_url: str
    context: int | None
    kind: str
    sessions: list[Session]
    judges: dict[str, str | None]
    judge_spent: list[JudgeSpending]
    cross_check: dict[str, JsonObject]
    imported: dict[str, ImportRecord]


def asked_by(record: RunRecord, benchmark: str) -> str:
    """The tool that asked for the answers to a benchmark, if they were imported, else ""."""
    imported = record.get("imported", {}).get(benchmark)
    return imported["tool"] if imported else ""


def read_run_record(text: str) -> RunRecord | None:
    """The record in the text of run.json; None when it is not a JSON object.

    Raises:
        ValueError: not JSON.
    """
    record = json.loads(text)
    return record if isinstance(record, dict) else None  # type: ignore[return-value]
