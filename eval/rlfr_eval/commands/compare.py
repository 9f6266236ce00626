"""`rlfr-eval compare`: paired differences between runs, and the problems whose verdict changed."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.errors import UserError, printable

if TYPE_CHECKING:
    from rlfr_eval.schema import Sample
    from rlfr_eval.score.compare import Difference, Means
    from rlfr_vlm.files import JsonObject

SUMMARY = "paired differences between runs: the first one against each of the others"
POOLED = "all together"
SHOWN_P = 0.05  # a p-value that no result can reach is noted above this
SMALLEST_P = 1e-15  # smaller p-values are rounding errors


def parser() -> argparse.ArgumentParser:
    given = eval_parser("compare", SUMMARY)
    given.add_argument("run_dir", type=Path, nargs="+", help="the first is the one to compare with")
    given.add_argument("--flips", type=int, default=10, help="flipped problems to show at most (default: %(default)s)")
    given.add_argument("--json", action="store_true", help="as JSON, with all flipped problems")
    return given


def run(options: argparse.Namespace) -> int:
    """Compare the first run with each of the others. Returns the exit code."""
    if len(options.run_dir) < 2:
        raise UserError("compare needs two run folders or more.")
    first = load_means(options.run_dir[0])
    results = {}
    for folder in options.run_dir[1:]:
        results[str(folder)] = differences_of(first, load_means(folder))
    if options.json:
        print(
            json.dumps(
                {
                    name: [dataclasses.asdict(one) | {"p_holm": adjusted(found).get(one.name)} for one in found]
                    for name, found in results.items()
                }
            )
        )
        return 0
    for name, found in results.items():
        print(_text(str(options.run_dir[0]), name, found, options.flips))
    return 0


@dataclass(frozen=True)
class BenchmarkMeans:
    """The data of one benchmark of a run that a comparison needs.

    Attributes:
        means: problem id, or question id if `grouped` -> share of right answers among the decided ones.
        samples: answers per problem.
        data: hash of the problems.
        configuration: how the benchmark was asked.
        by_answers: whether its score is about groups of answers, which cannot be paired.
        undecided: share of undecided answers, or questions.
        grouped: whether a question has several rows, which are right or wrong together.
    """

    means: "Means"
    samples: int
    data: str
    configuration: "JsonObject"
    limit: int | None
    judge: str | None
    by_answers: bool
    undecided: float
    grouped: bool


@dataclass(frozen=True)
class RunMeans:
    """The data of a run that a comparison needs."""

    folder: Path
    benchmarks: Mapping[str, BenchmarkMeans]
    compares_prompts: bool


def load_means(folder: Path) -> RunMeans:
    """Read the mean score of each problem and the configuration of each benchmark."""
    from rlfr_eval.kinds.kind import kind_class, recorded_benchmarks
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.score.metrics import collect
    from rlfr_eval.score.questions import by_question
    from rlfr_eval.score.scores import read_scores
    from rlfr_eval.score.verdicts import standings
    from rlfr_vlm.grading import Verdict

    with RunStore(folder, read_only=True) as store:
        judges = store.run.get("judges", {})
        standing = standings(store, recorded_benchmarks(store.run, store.folder), judges)
        answers: dict[str, list[Sample]] = {}
        for sample in store.answers():
            place = standing.get(sample.id)
            renewed = place.apply(sample) if place else sample
            answers.setdefault(sample.benchmark, []).append(renewed.without_text())
        scores = (read_scores(folder) or {"benchmarks": {}})["benchmarks"]
        benchmarks = {}
        for name, spec in store.run["specs"].items():
            samples, answered = spec["sampling"]["samples"], answers.get(name, [])
            left_out = set(scores.get(name, {}).get("not_scored", ()))
            question_of = _question_of(folder, name, spec, scores)
            ids = list(question_of or dict.fromkeys(sample.problem for sample in answered))
            final, _ = collect(ids, samples, answered, standing)
            results = by_question((question_of.get(key, key) for key in ids), final)
            results = {key: result for key, result in results.items() if key not in left_out}
            verdicts = [verdict for result in results.values() for verdict in result.verdicts]
            configuration = store.run["benchmarks"][name]
            benchmarks[name] = BenchmarkMeans(
                means={key: result.mean for key, result in results.items()},
                samples=samples,
                data=configuration["data_sha256"],
                configuration=configuration,
                limit=store.run["limits"][name],
                judge=judges.get(name),
                by_answers=spec.get("metric", "accuracy") != "accuracy",
                undecided=verdicts.count(Verdict.UNDECIDED) / max(1, len(verdicts)),
                grouped=bool(question_of),
            )
        return RunMeans(folder, benchmarks, kind_class(store.run).compares_prompts)


def _question_of(folder: Path, name: str, spec: "JsonObject", scores: "JsonObject") -> dict[str, str]:
    """Return problem id -> question id; empty where each problem is a question.

    Raises:
        UserError: a question of the benchmark has several rows, and scores.json does not say which.
    """
    question_of: dict[str, str] = scores.get(name, {}).get("question_of", {})
    if spec.get("grouping") and not question_of:
        raise UserError(
            f"{folder} has no scores of {name}, which say what rows are one question. "
            f"Run `rlfr-eval regrade {folder}`."
        )
    return question_of


def _note(text: str) -> None:
    print(printable(f"note: {text}"), file=sys.stderr)


def differences_of(a: RunMeans, b: RunMeans, note: Callable[[str], None] = _note) -> "list[Difference]":
    """Return the differences by benchmark and pooled, B minus A.

    Args:
        note: called with each remark for the reader.

    Raises:
        UserError: they cannot be paired.
    """
    from rlfr_eval.score.compare import compare, smallest_p

    shared = [name for name in a.benchmarks if name in b.benchmarks]
    if not shared:
        raise UserError(f"{a.folder} and {b.folder} have no benchmark in common.")
    results: list[Difference] = []
    pooled_a: dict[str, float | None] = {}
    pooled_b: dict[str, float | None] = {}
    single = True
    for name in shared:
        _check_pair(name, a, b, note)
        left, right = a.benchmarks[name], b.benchmarks[name]
        one_each = left.samples == right.samples == 1 and _all_or_nothing(left.means) and _all_or_nothing(right.means)
        single = single and one_each
        difference = compare(name, left.means, right.means, one_each)
        if difference is None:
            note(f"{name}: no problem was decided in both runs")
        else:
            results.append(difference)
            differing = len(difference.won) + len(difference.lost)
            if (least := smallest_p(differing)) > SHOWN_P:
                note(f"{name}: {differing} problems differ; so few cannot give a p below {least:g}, whatever they say")
        pooled_a |= {f"{name}/{key}": value for key, value in left.means.items()}
        pooled_b |= {f"{name}/{key}": value for key, value in right.means.items()}
    pooled = compare(POOLED, pooled_a, pooled_b, single)
    return [*results, *([pooled] if pooled and len(results) > 1 else [])]


def _all_or_nothing(means: "Means") -> bool:
    """Whether no problem has a share of full marks."""
    return all(mean in (0.0, 1.0, None) for mean in means.values())


def _check_pair(name: str, a: RunMeans, b: RunMeans, note: Callable[[str], None]) -> None:
    """Refuse a benchmark whose problems cannot be paired; note other differences."""
    from rlfr_eval.report.table import percent
    from rlfr_eval.run.folder import differences
    from rlfr_eval.score.metrics import HEADLINE_UNDECIDED

    left, right = a.benchmarks[name], b.benchmarks[name]
    if left.data != right.data:
        raise UserError(f"{name} has other problems in {b.folder} than in {a.folder}; none can be paired.")
    for run, means, other in ((a, left, right), (b, right, left)):
        if other.grouped and not means.grouped:
            raise UserError(
                f"{name} is scored over single rows in {run.folder}, which was scored by an older version, and over "
                f"questions in the other run. Run `rlfr-eval regrade {run.folder}`."
            )
    presets = [_preset(means.configuration) for means in (left, right)]
    if not a.compares_prompts and presets[0] != presets[1]:
        raise UserError(
            f"{name} was asked with the preset {presets[0]} in {a.folder} and with {presets[1]} in "
            f"{b.folder}; presets are not compared. Run both with the same one."
        )
    imported = [
        (run, means.configuration["imported"])
        for run, means in ((a, left), (b, right))
        if "imported" in means.configuration
    ]
    for run, how in imported:
        note(f"{name} was asked by {how['tool']} in {run.folder}, with a prompt and sampling of its own")
    if not imported:
        for change in differences(left.configuration, right.configuration):
            note(f"{name} was asked differently: {change}")
    if left.judge != right.judge:
        note(f"{name}: the judges differ: {left.judge or 'none'} and {right.judge or 'none'}")
    if left.by_answers:
        note(f"{name} is compared by answers; its score is about groups of them, and may move otherwise")
    for run, means in ((a, left), (b, right)):
        if means.limit is not None:
            note(f"{name} is PARTIAL in {run.folder}: the first {means.limit} problems")
        if means.undecided > HEADLINE_UNDECIDED:
            note(f"{name}: {percent(means.undecided)} % are undecided in {run.folder}, and left out of the pairs")


def _preset(configuration: "JsonObject") -> str:
    """Return the preset under which a benchmark was asked, or under which imported answers are scored."""
    return str(configuration.get("scored_as", configuration["prompt"]["name"]))


def _p(value: float) -> str:
    return f"{value:.3g}" if value >= SMALLEST_P else f"<{SMALLEST_P:g}"


def adjusted(found: "Sequence[Difference]") -> dict[str, float]:
    """Return the p-value of each benchmark after Holm's correction."""
    from rlfr_eval.score.compare import holm

    single = [one for one in found if one.name != POOLED]
    return dict(zip((one.name for one in single), holm([one.p for one in single]), strict=True))


def _text(first: str, other: str, found: "Sequence[Difference]", flips: int) -> str:
    if not found:
        return f"{other} and {first} have nothing that both decided."
    from rlfr_eval.report.table import aligned

    single = [one for one in found if one.name != POOLED]
    holm = adjusted(found)
    rows = [
        (
            one.name,
            str(one.pairs),
            f"{100 * one.value:+.1f}",
            f"[{100 * one.low:+.1f}, {100 * one.high:+.1f}]",
            _p(one.p),
            _p(holm[one.name]) if one.name in holm else "",
            f"+{len(one.won)} -{len(one.lost)}",
            str(one.left_out),
            one.test,
        )
        for one in found
    ]
    header = ("benchmark", "pairs", "difference", "95 % interval", "p", "p (Holm)", "flips", "left out", "test")
    lines = [f"{other} minus {first}, in percent", aligned([header, *rows])]
    if len(single) > 1:
        lines.append(f"p (Holm) allows for {len(single)} comparisons; without it, one in twenty looks real by chance.")
    for one in single:
        for word, flipped in (("better", one.won), ("worse", one.lost)):
            if flipped and flips:
                more = f" and {len(flipped) - flips} more" if len(flipped) > flips else ""
                lines.append(f"{one.name}, {word}: {', '.join(flipped[:flips])}{more}")
    return printable("\n".join(lines))
