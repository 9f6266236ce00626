"""Verdicts on answers to multimodal benchmarks: by VLMEvalKit's rules, then from a judge's replies to its prompts."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import RuleVerdict, Sample, Selection
from rlfr_eval.score.verdicts import BATCH, RETRIED, RuleReason, grading_key, incomplete_as_undecided
from rlfr_eval.vlmeval.silent_replies import NONSENSE, is_plain
from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_eval.vlmeval.worker.replay_judge import LONGEST_COMPARED, MOST_PROMPTS
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Item, Reason, Verdict, grade_many, grader_version
from rlfr_vlm.judging.client import Judge, JudgeResult
from rlfr_vlm.judging.prompt import Messages, vlmeval_messages
from rlfr_vlm.judging.replies import BY_VLMEVALKIT, VLM_READER_VERSION, JudgeReason, vlm_reader
from rlfr_vlm.servers.endpoint import Usage

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

FULL = 100.0  # percent
SEVERAL = "\n\n"  # between a judge's replies about one answer
# longer than any reply that is read as an answer, and than any that is compared: it leads to every further question
ANY_REPLY = "?" * (LONGEST_COMPARED + 1)


class Scoring:
    """VLMEvalKit's scoring, with our grader in the place of its evaluation of text."""

    def __init__(self, worker: WorkerProcess) -> None:
        self.worker = worker
        self._lock = threading.Lock()

    def outcomes(self, name: str, items: list[JsonObject], score: Mapping[str, str] | None = None) -> list[JsonObject]:
        """Outcomes of items. VLMEvalKit's questions whether two answers are equal are answered by the grader.

        Args:
            name: data set, as it was opened.
            score: place of the score in VLMEvalKit's table, for sets that it evaluates row by row.
        """
        stopped: dict[int, str] = {}
        with self._lock:
            outcomes = self.worker.score(name, items)
            while unanswered := [index for index, outcome in enumerate(outcomes) if _needs(outcome, "equal")]:
                needs = [outcomes[index]["needs"] for index in unanswered]
                grades = grade_many([Item(need["gold"], "", need["answer"]) for need in needs])
                for index, need, grade in zip(unanswered, needs, grades, strict=True):
                    items[index]["given"][need["key"]] = grade.verdict.value
                    if grade.reason in RETRIED:
                        stopped[index] = grade.reason
                again = self.worker.score(name, [items[index] for index in unanswered])
                for index, outcome in zip(unanswered, again, strict=True):
                    outcomes[index] = outcome
        for index, reason in stopped.items():
            if outcomes[index].get("verdict") == Verdict.UNDECIDED.value or _needs(outcomes[index], "judge"):
                outcomes[index]["reason"] = reason
        return [row_verdict(name, score or {}, outcome) if "result" in outcome else outcome for outcome in outcomes]

    def grade_by_rules(
        self,
        store: RunStore,
        selections: "Mapping[str, Selection[VlmBenchmark, VlmProblem]]",
        on_graded: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Append the rules' verdict for every answer that has none by this version of VLMEvalKit and our grader."""
        keys = {name: grading_key(selection.benchmark) for name, selection in selections.items()}
        wanted = {(name, problem.id) for name, selection in selections.items() for problem in selection.problems}
        graded = {line.key for line in store.rule_verdicts() if line.reason not in RETRIED}
        samples = (
            sample
            for sample in store.answers()
            if (sample.benchmark, sample.problem) in wanted
            and (sample.id, sample.digest, keys[sample.benchmark]) not in graded
        )
        while batch := list(islice(samples, BATCH)):
            for name in dict.fromkeys(sample.benchmark for sample in batch):
                same = [sample for sample in batch if sample.benchmark == name]
                store.add_verdicts(*self._rule_verdicts(selections[name].benchmark, same, keys[name]))
            on_graded(len(batch))

    def _rule_verdicts(self, benchmark: "VlmBenchmark", samples: list[Sample], key: str) -> Iterator[RuleVerdict]:
        answered = [sample for sample in samples if sample.raw.strip()]
        outcomes = self.outcomes(benchmark.name, [_item(benchmark, sample) for sample in answered], benchmark.score)
        by_id = dict(zip((sample.id for sample in answered), outcomes, strict=True))
        for sample in samples:
            verdict, reason, extracted = _by_rules(sample, by_id.get(sample.id))
            points = by_id.get(sample.id, {}).get("points") if verdict is Verdict.WRONG else None
            yield RuleVerdict(
                sample.id,
                sample.digest,
                key,
                grader_version(),
                verdict,
                "VLMEvalKit",
                reason,
                extracted,
                points=points,
            )

    async def judge(self, judge: Judge, benchmark: "VlmBenchmark", sample: Sample) -> JudgeResult:
        """Ask a judge about an answer until VLMEvalKit's scoring has all it needs."""
        return await self.judge_item(judge, benchmark.name, _item(benchmark, sample), benchmark.score)

    async def judge_item(
        self, judge: Judge, name: str, item: JsonObject, score: Mapping[str, str] | None = None
    ) -> JudgeResult:
        """Ask a judge about an item of the worker until VLMEvalKit's scoring has all it needs.

        Args:
            score: place of the score in VLMEvalKit's table, for sets that it evaluates row by row.
        """
        replies: list[str] = []
        asked: dict[str, JsonObject] = {}
        usage = Usage(cached=True)
        while True:
            outcome = (await asyncio.to_thread(self.outcomes, name, [item], score))[0]
            if not _needs(outcome, "judge"):
                outcome = await asyncio.to_thread(self._unless_passed_over, name, item, score, outcome, asked)
            elif len(asked) >= MOST_PROMPTS:
                outcome = {"verdict": Verdict.UNDECIDED.value, "reason": f"more than {MOST_PROMPTS} things to ask"}
            if not _needs(outcome, "judge"):
                return JudgeResult(
                    Verdict(outcome["verdict"]),
                    outcome.get("reason", ""),
                    SEVERAL.join(replies),
                    usage if replies else Usage(),
                    {key: item["given"][key] for key in sorted(asked)},
                    VLM_READER_VERSION,
                    outcome.get("points"),
                )
            need = outcome["needs"]
            reply = await judge.ask(vlmeval_messages(need), vlm_reader(need["reads"], need["choices"]))
            replies.append(reply.text)
            usage = usage + reply.usage
            if reply.value is None:
                return JudgeResult(
                    Verdict.UNDECIDED,
                    reply.reason,
                    SEVERAL.join(replies),
                    dataclasses.replace(usage, cached=False),
                    reader=VLM_READER_VERSION,
                )
            item["given"][need["key"]] = reply.value
            asked[need["key"]] = need

    def _unless_passed_over(
        self,
        name: str,
        item: JsonObject,
        score: Mapping[str, str] | None,
        outcome: JsonObject,
        asked: Mapping[str, JsonObject],
    ) -> JsonObject:
        """Return an outcome; undecided if VLMEvalKit may not have read a reply, which scores as nonsense does."""
        if outcome["verdict"] == Verdict.UNDECIDED.value:
            return outcome
        for key, need in asked.items():
            reply = item["given"][key]
            if need["reads"] != BY_VLMEVALKIT or is_plain(reply, need["prompt"], item["prediction"]):
                continue
            other = {**item, "given": {**item["given"], key: NONSENSE}}
            if _decided(self.outcomes(name, [other], score)[0]) == _decided(outcome):
                return {"verdict": Verdict.UNDECIDED.value, "reason": JudgeReason.PASSED_OVER}
        return outcome

    def prompts(self, benchmark: "VlmBenchmark", samples: Sequence[Sample]) -> Iterator[Messages]:
        """All that a judge would be asked at most about answers that rules leave undecided.

        A later question holds the reply to an earlier one; a long text stands in its place.
        """
        items = [_item(benchmark, sample) for sample in samples if sample.raw.strip()]
        while items:
            outcomes = zip(items, self.outcomes(benchmark.name, items, benchmark.score), strict=True)
            asked = [(item, outcome["needs"]) for item, outcome in outcomes if _needs(outcome, "judge")]
            for item, need in asked:
                yield vlmeval_messages(need)
                item["given"][need["key"]] = benchmark.reply or ANY_REPLY
            items = [item for item, _ in asked]


def _item(benchmark: "VlmBenchmark", sample: Sample) -> JsonObject:
    """An answer as the worker takes it."""
    return {"id": sample.problem, "prediction": sample.raw, "given": {}, "compare": benchmark.preset.compare}


def row_verdict(name: str, score: Mapping[str, str], outcome: JsonObject) -> JsonObject:
    """Verdict of a row that VLMEvalKit evaluated by itself: undecided if there is no score at its place.

    Less than full marks is wrong, with `points` between 0 and 1.
    """
    try:
        percent = upstream_percent(name, score, outcome["result"], {})
    except UserError as error:
        reason = f"VLMEvalKit cannot evaluate it by itself ({(outcome['failed'] or str(error))[:200]})"
        return {"verdict": Verdict.UNDECIDED.value, "reason": reason, "asked": outcome["asked"]}
    verdict = {"verdict": "right" if percent == FULL else "wrong", "extracted": "", "asked": outcome["asked"]}
    return {**verdict, "points": percent / FULL} if 0 < percent < FULL else verdict


def _decided(outcome: JsonObject) -> tuple[object, object]:
    return outcome.get("verdict"), outcome.get("points")


def _needs(outcome: JsonObject, kind: str) -> bool:
    return "needs" in outcome and outcome["needs"]["kind"] == kind


def _by_rules(sample: Sample, outcome: JsonObject | None) -> tuple[Verdict, str, str]:
    """Verdict, reason and extraction; `outcome` is None for an empty response."""
    extracted = ""
    if outcome is None:
        verdict, reason = Verdict.WRONG, Reason.NO_ANSWER
    elif "needs" in outcome:
        verdict, reason = Verdict.UNDECIDED, outcome.get("reason", RuleReason.JUDGE)
    else:
        verdict, reason = Verdict(outcome["verdict"]), outcome.get("reason", "")
        extracted = outcome.get("extracted", "")
    verdict, reason = incomplete_as_undecided(sample, verdict, reason)
    return verdict, reason, "" if reason == RuleReason.FILTERED else extracted
