"""Multimodal benchmarks: descriptions of VLMEvalKit's data sets and of user files, read from TOML files."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.benchmarks.text import AnyBenchmark, build, read_toml
from rlfr_eval.benchmarks.vlm_presets import VlmPreset, vlm_preset
from rlfr_eval.model.request_images import data_url
from rlfr_eval.score.metrics import ProblemResult
from rlfr_eval.score.vlm_scores import more_scores
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonMapping, JsonObject
from rlfr_vlm.grading import Extraction
from rlfr_vlm.judging.replies import VLM_READER_VERSION

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

FOLDER_IN_WHEEL = Path(__file__).resolve().parents[1] / "benchmark_files" / "vlm"
FOLDER_IN_CHECKOUT = Path(__file__).resolve().parents[3] / "benchmarks" / "vlm"
OPEN = "open"  # family of user questions without options, which VLMEvalKit cannot score
BY_ROW = "rows"  # family of sets that VLMEvalKit evaluates row by row
METRICS = ("accuracy", "wemath")
SUBSETS = ("any", "whole", "values")
GROUPINGS = {  # how several rows are one question -> note for a reader
    "circular": "a question is asked once for each shift of its options, and is right only if all of these passes "
    "are; n and intervals count questions, vanilla is the pass without a shift",
    "pairs": "a question is asked about two images, and is right only if both answers are; n and intervals count "
    "questions",
}
# not allowed in a TOML file of a user
RUN_FIELDS = (
    "family",
    "grouping",
    "questions",
    "vlmeval_version",
    "system_prompt",
    "jpeg",
    "official",
    "unjudged",
    "reply",
)


@dataclass(frozen=True, kw_only=True)
class VlmBenchmark(AnyBenchmark["VlmProblem"]):
    """A multimodal benchmark.

    Attributes:
        vlmeval: the data set's name in VLMEvalKit; for a user file, the name under which it is opened there.
        file: a user's TSV file; empty: `vlmeval`.tsv in the data folder.
        md5, url: of VLMEvalKit's copy; empty if unknown.
        prompt: a preset in `vlm_presets.py`.
        metric: `accuracy`: share of right answers; `wemath`: WeMath's four dimensions.
        where: column -> value of the rows that count for the score; other rows are reported separately.
        groups: columns to break the result down by.
        worst_of: column of the question whose variants must all be right for the worst-case score.
        subset: which subsets have a score: `any`, only the `whole` set, or those with all `values`.
        values: column -> values that must all occur.
        score: column, row and unit of the score in VLMEvalKit's result, for comparison with its own evaluation.
        judge_calls: calls of a working judge per answer, as text for readers.
        quirks: peculiarities of VLMEvalKit's scoring, as text for readers.
        grouping: how several rows are one question: a key of `GROUPINGS`, or "". Set by a run, as are the following.
        questions: number of questions where a question has several rows, else 0.
        family: VLMEvalKit's class of the data set, whose version is `vlmeval_version`.
        unjudged: of a set that VLMEvalKit evaluates row by row: why no judge can be asked; "" if one can.
        reply: of such a set: a judge's reply that VLMEvalKit can read; "" if it was not seen to ask for one.
        official: whether the data are the copy that VLMEvalKit names, if it names one. Set by a run.
    """

    vlmeval: str = ""
    file: str = ""
    md5: str = ""
    url: str = ""
    prompt: str = "official"
    metric: str = "accuracy"
    where: dict[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    worst_of: str = ""
    subset: str = "any"
    values: dict[str, list[str]] = field(default_factory=dict)
    score: dict[str, str] = field(default_factory=dict)
    judge_calls: str = ""
    quirks: tuple[str, ...] = ()
    grouping: str = ""
    questions: int = 0
    family: str = ""
    vlmeval_version: str = ""
    system_prompt: str = ""
    jpeg: bool = False
    unjudged: str = ""
    reply: str = ""
    official: bool = True
    # for the family OPEN, whose answers the grader and the judge treat as free text
    free_text: bool = True

    @property
    def preset(self) -> VlmPreset:
        """The prompt preset."""
        return vlm_preset(self.prompt)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns of the file that the score needs."""
        wemath = ["key", "ID"] if self.metric == "wemath" else []
        worst = [self.worst_of] if self.worst_of else []
        return tuple(dict.fromkeys([*self.where, *self.values, *worst, *wemath]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the file that the score or its breakdown needs."""
        return tuple(dict.fromkeys([*self.groups, *self.required_columns]))

    def __post_init__(self) -> None:
        self.check_common()
        _ = self.preset
        self.check_choice("metric", METRICS)
        self.check_choice("subset", SUBSETS)
        self.check_choice("grouping", ("", *GROUPINGS))
        if not self.vlmeval:
            raise UserError(f"Benchmark {self.name}: vlmeval is empty; it is the data set's name in VLMEvalKit.")

    def body(self, problem: "VlmProblem") -> JsonObject:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        content = [
            {"type": "text", "text": part["text"]}
            if "text" in part
            else {"type": "image_url", "image_url": {"url": data_url(Path(part["image"]), self.jpeg)}}
            for part in self.preset.parts(problem, self.family)
        ]
        return {"messages": [*system, {"role": "user", "content": content}]}

    def prompt_text(self, problem: "VlmProblem") -> str:
        system = [f"[system]\n{self.system_prompt}"] if self.system_prompt else []
        parts = self.preset.parts(problem, self.family)
        user = "\n".join(part.get("text", "") if "text" in part else f"(image: {part['image']})" for part in parts)
        return "\n\n".join([*system, f"[user]\n{user}"])

    def extract(self, problem: "VlmProblem", raw: str) -> Extraction:
        if self.family == OPEN:
            return super().extract(problem, raw)
        # VLMEvalKit extracts the answer while scoring; here "" only says that the response is not empty.
        return Extraction(raw, raw, "" if raw.strip() else None, "VLMEvalKit", "none")

    def prompt_config(self) -> JsonObject:
        preset = self.preset
        prompt = {
            "name": preset.name,
            "version": preset.version,
            "hash": preset.digest(self.family, self.system_prompt),
        }
        return {"prompt": prompt, "vlmeval": self.vlmeval_version, "images": "jpeg" if self.jpeg else "as they are"}

    def extra_scores(
        self, problems: Sequence["VlmProblem"], results: Sequence[ProblemResult], rules: Sequence[ProblemResult]
    ) -> JsonObject:
        return more_scores(self, problems, results, rules)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes that a reader needs in order to interpret the score."""
        notes = [note for note in (self.caution, GROUPINGS.get(self.grouping)) if note]
        if not self.official:
            notes.append("the data are not the copy that VLMEvalKit names, so published values are not shown")
        if self.family == BY_ROW:
            place = f"{self.score.get('column')} of {self.score.get('row')}"
            notes.append(
                f"the score is the mean of VLMEvalKit's results for each row by itself ({place}); --cross-check "
                "tells whether that is its score of the whole (a column such as F1 is no mean)"
            )
            if self.unjudged:
                notes.append(f"no judge can be asked: {self.unjudged}")
        return tuple(notes)

    @property
    def reader(self) -> str:
        return "" if self.family == OPEN else VLM_READER_VERSION

    def grading(self) -> list[object]:
        if self.family == OPEN:
            return [self.family, self.tolerance, self.no_answer, self.free_text, self.answer_type]
        settings: list[object] = [self.family, self.vlmeval_version, self.preset.compare]
        return [*settings, dict(self.score)] if self.family == BY_ROW else settings


def folder() -> Path:
    """Return the folder of the shipped benchmark files."""
    return FOLDER_IN_CHECKOUT if FOLDER_IN_CHECKOUT.is_dir() else FOLDER_IN_WHEEL


def build_vlm(table: JsonMapping, where: str) -> VlmBenchmark:
    """Build a benchmark from a TOML table or from run.json, converting lists to tuples."""
    tuples = {key: tuple(table[key]) for key in ("groups", "quirks") if isinstance(table.get(key), list)}
    return build(VlmBenchmark, {**table, **tuples}, where)


def shipped_vlm() -> dict[str, VlmBenchmark]:
    """Return the shipped multimodal benchmarks by name."""
    benchmarks = (build_vlm(read_toml(path), str(path)) for path in sorted(folder().glob("*.toml")))
    return {benchmark.name: benchmark for benchmark in benchmarks}


def surveyed_sets() -> JsonObject:
    """Return what `benchmarks/vlmevalkit/survey.py` found: class -> `names`, `how` they can be scored, and why not."""
    survey: JsonObject = json.loads((folder() / "sets.json").read_text(encoding="utf-8"))
    return survey


def resolve_vlm(names: Iterable[str], preset: VlmPreset, data_dir: Path) -> list[VlmBenchmark]:
    """Return benchmarks by name, by name in VLMEvalKit, or by path of a user's TOML or TSV file.

    Any other name is taken as a data set of VLMEvalKit if its file is in the data folder.

    Raises:
        UserError: a missing file, an unknown name, or one name for two benchmarks.
    """
    shipped = shipped_vlm()
    by_vlmeval_name = {benchmark.vlmeval: benchmark for benchmark in shipped.values()}
    resolved: dict[str, VlmBenchmark] = {}
    for name in names:
        if name.endswith(".toml"):
            benchmark = _from_toml(name)
        elif name.endswith(".tsv"):
            benchmark = _from_tsv(Path(name), shipped, by_vlmeval_name)
        elif name in shipped or name in by_vlmeval_name:
            benchmark = shipped.get(name) or by_vlmeval_name[name]
        elif not (data_dir / f"{name}.tsv").is_file():
            hint = nearest(name, [*shipped, *by_vlmeval_name])
            raise UserError(
                f"Unknown benchmark {name!r}.{hint} Known: {', '.join(shipped)}; any other data set of VLMEvalKit "
                f"whose NAME.tsv is in {data_dir}; or the path of a TSV file of your own."
            )
        else:
            benchmark = VlmBenchmark(name=name, title=name, licence="see its data card", n=0, vlmeval=name)
        benchmark = dataclasses.replace(benchmark, prompt=preset.name, sampling=preset.sampling)
        if resolved.setdefault(benchmark.name, benchmark) != benchmark:
            raise UserError(f"--data names two things that are called {benchmark.name}. Run them into two folders.")
    return list(resolved.values())


def _from_toml(name: str) -> VlmBenchmark:
    """Read a user's TOML file. The data path becomes absolute, since runs may be reopened from another folder."""
    table = read_toml(Path(name))
    for key in ("prompt", "sampling", *RUN_FIELDS):
        if key in table:
            raise UserError(
                f"{name}: {key} is no part of a benchmark's file: --preset and the options of `rlfr-eval vlm` say how "
                "it is asked, VLMEvalKit how it is scored. Take it out."
            )
    benchmark = build_vlm(table, name)
    file = str(Path(benchmark.file).expanduser().resolve()) if benchmark.file else ""
    return dataclasses.replace(benchmark, file=file)


def _from_tsv(path: Path, *known: Mapping[str, VlmBenchmark]) -> VlmBenchmark:
    """Return the benchmark of a user's TSV file; a known name inherits that benchmark's prompt and score."""
    if not path.is_file():
        raise UserError(f"--data {path} is no file.")
    name = path.stem
    for benchmarks in known:
        if name in benchmarks:
            return dataclasses.replace(benchmarks[name], file=str(path.resolve()))
    return VlmBenchmark(name=name, title=name, licence="your own", n=0, vlmeval=name, file=str(path.resolve()))
