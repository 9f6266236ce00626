"""Benchmark files of multimodal sets: what VLMEvalKit has of them, and what is known about their scores."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark, build, read_toml
from rlfr_eval.benchmarks.vlm_presets import VlmPreset, vlm_preset
from rlfr_eval.judge.vlm_replies import READER
from rlfr_eval.model.request_images import data_url
from rlfr_eval.score.metrics import ProblemResult
from rlfr_eval.score.vlm_scores import more_scores
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading import Extraction

BESIDE = Path(__file__).resolve().parents[1] / "benchmark_files" / "vlm"  # in a wheel
IN_CHECKOUT = Path(__file__).resolve().parents[3] / "benchmarks" / "vlm"
OPEN = "open"  # family of questions of one's own without options: VLMEvalKit has no way to score them
BY_ROW = "rows"  # family of sets that VLMEvalKit evaluates row by row
METRICS = ("accuracy", "wemath")
SUBSETS = ("any", "whole", "values")
OF_A_RUN = ("family", "vlmeval_version", "system_prompt", "jpeg", "official")


@dataclass(frozen=True, kw_only=True)
class VlmBenchmark(AnyBenchmark):
    """A multimodal benchmark.

    Attributes:
        vlmeval: its name in VLMEvalKit; for a file of one's own, the name it gets there.
        file: a TSV file of one's own; empty: `vlmeval`.tsv in the data folder.
        md5, url: of VLMEvalKit's copy; empty: not known.
        prompt: a preset of `presets.py`.
        metric: `accuracy`: right answers of all; `wemath`: WeMath's four dimensions.
        where: column -> value of the rows that the score is about; the others are reported beside it.
        groups: columns to break the result down by.
        worst_of: column of the questions whose variants are all to be right for a worst-case score.
        subset: which parts of it have a score: `any`, only the `whole`, or those with all `values`.
        values: column -> values that must all occur.
        score: how VLMEvalKit reports it: column, row and unit, for the comparison with its own evaluation.
        judge_calls: of a healthy judge per answer, for people.
        quirks: what one should know of VLMEvalKit's way, for people.
        family, vlmeval_version, system_prompt, jpeg: of a run; no part of a file.
        official: of a run: whether the data are the copy that VLMEvalKit names, where it names one.
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
    family: str = ""
    vlmeval_version: str = ""
    system_prompt: str = ""
    jpeg: bool = False
    official: bool = True
    # questions of one's own without options are graded as free text, by the one grader and the judge
    tolerance: float = 0.0
    no_answer: str = "wrong"
    free_text: bool = True

    @property
    def preset(self) -> VlmPreset:
        """How it is asked."""
        return vlm_preset(self.prompt)

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the file without which there is no score."""
        more = ["key", "ID"] if self.metric == "wemath" else []
        worst = [self.worst_of] if self.worst_of else []
        return tuple(dict.fromkeys([*self.where, *self.values, *worst, *more]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the file that scores are made of, or broken down by."""
        return tuple(dict.fromkeys([*self.groups, *self.needed]))

    def __post_init__(self) -> None:
        self.check_common()
        _ = self.preset
        self.check_choice("metric", METRICS)
        self.check_choice("subset", SUBSETS)
        if not self.vlmeval:
            raise UserError(f"Benchmark {self.name}: vlmeval is empty; it is the data set's name in VLMEvalKit.")

    def body(self, problem: Any) -> dict[str, Any]:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        content = [
            {"type": "text", "text": part["text"]}
            if "text" in part
            else {"type": "image_url", "image_url": {"url": data_url(Path(part["image"]), self.jpeg)}}
            for part in self.preset.parts(problem, self.family)
        ]
        return {"messages": [*system, {"role": "user", "content": content}]}

    def asked(self, problem: Any) -> str:
        system = [f"[system]\n{self.system_prompt}"] if self.system_prompt else []
        parts = self.preset.parts(problem, self.family)
        user = "\n".join(part.get("text", "") if "text" in part else f"(image: {part['image']})" for part in parts)
        return "\n\n".join([*system, f"[user]\n{user}"])

    def extract(self, problem: Any, raw: str) -> Extraction:
        if self.family == OPEN:
            return super().extract(problem, raw)
        # VLMEvalKit extracts while it scores; here only whether anything was said
        return Extraction(raw, raw, "" if raw.strip() else None, "VLMEvalKit", "none")

    def how_asked(self) -> dict[str, Any]:
        preset = self.preset
        shown = {
            "name": preset.name,
            "version": preset.version,
            "hash": preset.digest(self.family, self.system_prompt),
        }
        return {"prompt": shown, "vlmeval": self.vlmeval_version, "images": "jpeg" if self.jpeg else "as they are"}

    def more_scores(
        self, problems: Sequence[Any], results: Sequence[ProblemResult], rules: Sequence[ProblemResult]
    ) -> dict[str, Any]:
        return more_scores(self, problems, results, rules)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the score."""
        found = []
        if not self.official:
            found.append("the data are not the copy that VLMEvalKit names, so published values are not shown")
        if self.family == BY_ROW:
            found.append("the score is the mean of VLMEvalKit's results for each row by itself; --cross-check tells "
                         "whether that is its score of the whole (a column such as F1 is no mean)")  # fmt: skip
        return tuple(found)

    @property
    def reader(self) -> str:
        return "" if self.family == OPEN else READER

    def grading(self) -> list[Any]:
        if self.family == OPEN:
            return [self.family, self.tolerance, self.no_answer, self.free_text, self.answer_type]
        found = [self.family, self.vlmeval_version, self.preset.compare]
        return [*found, dict(self.score)] if self.family == BY_ROW else found


def folder() -> Path:
    """Where the shipped benchmark files are."""
    return IN_CHECKOUT if IN_CHECKOUT.is_dir() else BESIDE


def build_vlm(table: dict[str, Any], where: str) -> VlmBenchmark:
    """A benchmark from a TOML table, or from a run's record; lists become what they are here."""
    lists = {key: tuple(table[key]) for key in ("groups", "quirks") if isinstance(table.get(key), list)}
    found: VlmBenchmark = build(VlmBenchmark, {**table, **lists}, where)
    return found


def shipped_vlm() -> dict[str, VlmBenchmark]:
    """The shipped multimodal benchmarks by name."""
    found = (build_vlm(read_toml(path), str(path)) for path in sorted(folder().glob("*.toml")))
    return {benchmark.name: benchmark for benchmark in found}


def resolve_vlm(names: Iterable[str], preset: VlmPreset, data_dir: Path) -> list[VlmBenchmark]:
    """Benchmarks by name, by their name in VLMEvalKit, by path of a TOML file or of a TSV file of one's own.

    A name that nobody here knows, but whose file is in the data folder, is VLMEvalKit's business.

    Raises:
        UserError: a path that is no file, a name that means nothing, or one name for two things.
    """
    known = shipped_vlm()
    by_upstream = {benchmark.vlmeval: benchmark for benchmark in known.values()}
    found: dict[str, VlmBenchmark] = {}
    for name in names:
        if name.endswith(".toml"):
            benchmark = _described(name)
        elif name.endswith(".tsv"):
            benchmark = _own(Path(name), known, by_upstream)
        elif name in known or name in by_upstream:
            benchmark = known.get(name) or by_upstream[name]
        elif not (data_dir / f"{name}.tsv").is_file():
            hint = nearest(name, [*known, *by_upstream])
            raise UserError(
                f"Unknown benchmark {name!r}.{hint} Known: {', '.join(known)}; any other data set of VLMEvalKit whose "
                f"NAME.tsv is in {data_dir}; or the path of a TSV file of your own."
            )
        else:
            benchmark = VlmBenchmark(name=name, title=name, licence="see its data card", n=0, vlmeval=name)
        benchmark = dataclasses.replace(benchmark, prompt=preset.name, sampling=preset.sampling)
        if found.setdefault(benchmark.name, benchmark) != benchmark:
            raise UserError(f"--data names two things that are called {benchmark.name}. Run them into two folders.")
    return list(found.values())


def _described(name: str) -> VlmBenchmark:
    """A benchmark by a TOML file of one's own; its data file by its full path, for runs are looked at elsewhere."""
    table = read_toml(Path(name))
    for key in ("prompt", "sampling", *OF_A_RUN):
        if key in table:
            raise UserError(
                f"{name}: {key} is no part of a benchmark's file: --preset and the options of `rlfr-eval vlm` say how "
                "it is asked, VLMEvalKit how it is scored. Take it out."
            )
    benchmark = build_vlm(table, name)
    file = str(Path(benchmark.file).expanduser().resolve()) if benchmark.file else ""
    return dataclasses.replace(benchmark, file=file)


def _own(path: Path, *known: Mapping[str, VlmBenchmark]) -> VlmBenchmark:
    """A file of one's own; one with the name of a known benchmark is that benchmark, prompt, score and all."""
    if not path.is_file():
        raise UserError(f"--data {path} is no file.")
    name = path.stem
    for benchmarks in known:
        if name in benchmarks:
            return dataclasses.replace(benchmarks[name], file=str(path.resolve()))
    return VlmBenchmark(name=name, title=name, licence="your own", n=0, vlmeval=name, file=str(path.resolve()))
