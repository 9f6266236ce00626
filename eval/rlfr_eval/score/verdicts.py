"""Verdicts on answers: by rules first, with the grader that training uses; then a judge's on undecided answers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from rlfr_eval.benchmarks.text import AnyBenchmark
from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import RuleVerdict, Sample, Selections, problems_by_id
from rlfr_vlm.grading import Grade, Reason, Verdict, grade_many, grader_version
from rlfr_vlm.provenance import short_hash

BATCH = 512  # answers graded at a time
PROVE_WRONG = ("number", "option")  # paths of the grader whose "wrong" also holds for free text


RETRIED = frozenset([Reason.TIME_OUT, Reason.CRASH])  # the grader's fault, which another try may not have


class RuleReason(Reason):
    """Why rules left an answer undecided, beside the grader's own reasons."""

    JUDGE = "only a judge can tell"
    FILTERED = "stopped by a content filter"
    ONLY_REASONING = "answer only in the server's reasoning"


@dataclass(frozen=True, slots=True)
class Standing:
    """The verdict in force on a sample, and its extraction.

    Attributes:
        rules: the rules' verdict.
        final: the judge's verdict where rules were undecided and it decided, else the rules'.
        reason: why it is undecided, or why the policy counts it as wrong.
        judged: whether the judge decided it.
        extracted, how: the grader's extraction; `how` is None where the verdict has none, and the sample's own counts.
        points: share of full marks, where a wrong answer has some; else None.
    """

    rules: Verdict
    final: Verdict
    reason: str = ""
    judged: bool = False
    extracted: str | None = None
    how: str | None = None
    points: float | None = None

    def apply(self, sample: Sample) -> Sample:
        """The sample with the extraction in force."""
        return sample if self.how is None else sample.with_extraction(self.extracted, self.how)


def grading_key(benchmark: "AnyBenchmark[Any]") -> str:
    """Hash of the grader and of the settings that decide a verdict of the rules."""
    return short_hash([grader_version(), *benchmark.grading()])


def incomplete_as_undecided(sample: Sample, verdict: Verdict, reason: str) -> tuple[Verdict, str]:
    """Leave an answer undecided that a content filter stopped, or that stands in the server's reasoning alone."""
    if sample.finish_reason == "content_filter" and verdict is not Verdict.RIGHT:
        return Verdict.UNDECIDED, RuleReason.FILTERED
    if sample.only_reasoning:
        return Verdict.UNDECIDED, RuleReason.ONLY_REASONING
    return verdict, reason


def grade_by_rules(
    store: RunStore, selections: Selections, on_graded: Callable[[int], object] = lambda count: None
) -> int:
    """Append the grader's verdict and extraction for every answer that has none by this grader and these settings.

    A verdict without an extraction, as older versions wrote it, is written again: the extraction that is stored with
    the answer may be another grader's. So is one of a grader that was stopped or crashed.

    Returns:
        The number of graded answers.
    """
    keys = {name: grading_key(selection.benchmark) for name, selection in selections.items()}
    graded = {line.key for line in store.rule_verdicts() if line.how is not None and line.reason not in RETRIED}
    problems = problems_by_id(selections)
    samples = (
        sample
        for sample in store.answers()
        if (sample.benchmark, sample.problem) in problems
        and (sample.id, sample.digest, keys[sample.benchmark]) not in graded
    )
    count = 0
    while batch := list(islice(samples, BATCH)):
        benchmarks = {sample.benchmark: selections[sample.benchmark].benchmark for sample in batch}
        for tolerance in sorted({benchmark.tolerance for benchmark in benchmarks.values()}):
            same = [sample for sample in batch if benchmarks[sample.benchmark].tolerance == tolerance]
            items = [
                benchmarks[sample.benchmark].item(problems[sample.benchmark, sample.problem], sample.raw)
                for sample in same
            ]
            grades = grade_many(items, tolerance=tolerance)
            store.add_verdicts(
                *(
                    _verdict(sample, benchmarks[sample.benchmark], keys[sample.benchmark], grade)
                    for sample, grade in zip(same, grades, strict=True)
                )
            )
        count += len(batch)
        on_graded(len(batch))
    return count


def _verdict(sample: Sample, benchmark: "AnyBenchmark[Any]", key: str, grade: Grade) -> RuleVerdict:
    verdict, reason = grade.verdict, grade.reason
    if reason == Reason.NO_ANSWER and (benchmark.no_answer == "wrong" or sample.finish_reason == "length"):
        # a response that was cut off before it answered has not answered, whatever the policy
        verdict = Verdict.WRONG
    elif benchmark.free_text and verdict is Verdict.WRONG and grade.path not in PROVE_WRONG:
        verdict, reason = Verdict.UNDECIDED, Reason.FREE_TEXT
    verdict, reason = incomplete_as_undecided(sample, verdict, reason)
    extraction = grade.extraction
    return RuleVerdict(
        sample.id,
        sample.digest,
        key,
        grader_version(),
        verdict,
        grade.path,
        reason,
        extraction.answer,
        extraction.how,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer that verdicts must be about.

    Attributes:
        digest: hash of the response.
        stored, in_force: extraction that was stored with the answer, and the one of the grader in force.
    """

    benchmark: str
    digest: str
    stored: str | None
    in_force: str | None


def standings(store: RunStore, selections: Selections, judges: Mapping[str, str | None]) -> dict[str, Standing]:
    """Sample id -> its standing.

    A verdict on another answer, or by another grader, judge or reader, does not count; neither does a judge's verdict
    on another extraction than the one in force.

    Args:
        judges: benchmark -> identity of the judge whose verdicts count; None or absent: rules alone.
    """
    readers = {name: selection.benchmark.reader for name, selection in selections.items()}
    standing, answers = _standings_by_rules(store, selections)
    for line in store.judge_verdicts():
        current, answer = standing.get(line.id), answers.get(line.id)
        if current is None or answer is None or line.answer != answer.digest:
            continue
        if line.judge != judges.get(answer.benchmark) or line.reader != readers[answer.benchmark]:
            continue
        if (line.extracted if line.has_extraction else answer.stored) != answer.in_force:
            continue
        if line.verdict is not Verdict.UNDECIDED:
            standing[line.id] = replace(current, final=line.verdict, reason="", judged=True, points=line.points)
        elif not current.judged:
            standing[line.id] = replace(current, reason=line.reason)
    return standing


def _standings_by_rules(store: RunStore, selections: Selections) -> tuple[dict[str, Standing], dict[str, _Answer]]:
    """Standings by rules alone, and the answers that rules left undecided."""
    keys = {name: grading_key(selection.benchmark) for name, selection in selections.items()}
    current_keys = set(keys.values())
    lines = {line.key: line for line in store.rule_verdicts() if line.grading in current_keys}
    standing: dict[str, Standing] = {}
    undecided: dict[str, _Answer] = {}
    for sample in store.answers():
        key = keys.get(sample.benchmark)
        line = None if key is None else lines.pop((sample.id, sample.digest, key), None)
        if line is None:
            continue
        place = Standing(line.verdict, line.verdict, line.reason, False, line.extracted, line.how, line.points)
        standing[sample.id] = place
        if line.verdict is Verdict.UNDECIDED:
            in_force = place.apply(sample).extracted
            undecided[sample.id] = _Answer(sample.benchmark, sample.digest, sample.extracted, in_force)
    return standing, undecided


def undecided_answers(
    store: RunStore, selections: Selections, standing: Mapping[str, Standing], ungraded: bool = False
) -> Iterator[Sample]:
    """Answers that a judge may be asked about, with the extraction in force.

    Args:
        ungraded: include answers that rules have not graded yet.
    """
    samples = {
        (name, problem.id): selection.benchmark.sampling.samples
        for name, selection in selections.items()
        if selection.benchmark.judge == "undecided"
        for problem in selection.problems
    }
    for sample in store.answers():
        if sample.sample < samples.get((sample.benchmark, sample.problem), 0) and not sample.only_reasoning:
            place = standing.get(sample.id)
            if place is None:
                if ungraded:
                    yield sample
            elif place.final is Verdict.UNDECIDED:
                yield place.apply(sample)
