"""Verdicts on answers to multimodal benchmarks: VLMEvalKit's rules first, then what a judge replies to its prompts."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from rlfr_eval.benchmarks.vlm import OPEN
from rlfr_eval.judge.client import Decide, Judge, JudgeResult
from rlfr_eval.judge.phase import compare_answers, compare_prompts
from rlfr_eval.judge.prompt import vlmeval_messages
from rlfr_eval.judge.replies import VLM_READER_VERSION, vlm_reader
from rlfr_eval.model.endpoint import Usage
from rlfr_eval.run.folder import RunStore
from rlfr_eval.score.verdicts import BATCH, Chosen, grading_key, rule_lines
from rlfr_eval.score.verdicts import grade_by_rules as grade_open
from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_eval.vlmeval.worker.replay_judge import LONGEST_COMPARED
from rlfr_eval.vlmeval.worker_process import WorkerProcess
from rlfr_vlm.errors import UserError
from rlfr_vlm.grading import Item, Reason, Verdict, grade_many, grader_version

SEVERAL = "\n\n"  # between a judge's replies about one answer
# longer than any reply that is read as an answer, and than any that is compared: it leads to whatever is asked next
ANY_REPLY = "?" * (LONGEST_COMPARED + 1)


class VlmReason(Reason):
    """Why rules left an answer undecided, or called it wrong."""

    JUDGE = "only a judge can tell"
    FILTERED = "stopped by a content filter"


class Scoring:
    """VLMEvalKit's scoring, with our grader where it would evaluate text."""

    def __init__(self, worker: WorkerProcess, chosen: Chosen) -> None:
        self.worker, self.chosen = worker, chosen
        self._lock = threading.Lock()

    def outcomes(self, name: str, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Outcomes of items; whether two answers are equal is settled on the way, by the one grader."""
        with self._lock:
            found = self.worker.score(name, items)
            while open_items := [place for place, one in enumerate(found) if _needs(one, "equal")]:
                needs = [found[place]["needs"] for place in open_items]
                grades = grade_many([Item(need["gold"], "", need["answer"]) for need in needs])
                for place, need, grade in zip(open_items, needs, grades, strict=True):
                    items[place]["given"][need["key"]] = grade.verdict.value
                again = self.worker.score(name, [items[place] for place in open_items])
                for place, outcome in zip(open_items, again, strict=True):
                    found[place] = outcome
            return [self._verdict(name, one) if "result" in one else one for one in found]

    def _verdict(self, name: str, outcome: dict[str, Any]) -> dict[str, Any]:
        """Verdict of a row that VLMEvalKit evaluated by itself.

        Raises:
            UserError: it says something between right and wrong, or the benchmark does not say where its score is.
        """
        percent = upstream_percent(name, self.chosen[name][0].score, outcome["result"], {})
        if percent not in (0.0, 100.0):
            raise UserError(
                f"VLMEvalKit gives {percent:g} % to an answer of {name}; only sets whose answers are right or wrong "
                "can be measured here."
            )
        return {"verdict": "right" if percent else "wrong", "extracted": "", "asked": outcome["asked"]}

    def item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the worker is told of an answer."""
        compare = self.chosen[row["benchmark"]][0].preset.compare
        return {"id": row["problem"], "prediction": row["raw"], "given": {}, "compare": compare}

    def grade_by_rules(self, store: RunStore, on_graded: Callable[[int], None] = lambda count: None) -> None:
        """Append the rules' verdict for every answer that has none by this version of VLMEvalKit and our grader."""
        grade_open(store, {name: one for name, one in self.chosen.items() if one[0].family == OPEN}, on_graded)
        keys = {name: grading_key(one) for name, (one, _) in self.chosen.items() if one.family != OPEN}
        wanted = {(name, problem.id) for name in keys for problem in self.chosen[name][1]}
        graded = {(row["id"], row["answer"], row["grading"]) for row in rule_lines(store)}
        rows = (
            row
            for row in store.answers()
            if (row["benchmark"], row["problem"]) in wanted
            and (row["id"], row["digest"], keys[row["benchmark"]]) not in graded
        )
        while batch := list(islice(rows, BATCH)):
            for name in dict.fromkeys(row["benchmark"] for row in batch):
                same = [row for row in batch if row["benchmark"] == name]
                store.verdicts.append(*self._rule_lines(name, same, keys[name]))
            on_graded(len(batch))

    def _rule_lines(self, name: str, rows: list[dict[str, Any]], key: str) -> Iterator[dict[str, Any]]:
        said = [row for row in rows if row["raw"].strip()]
        outcomes = dict(zip((row["id"] for row in said), self.outcomes(name, list(map(self.item, said))), strict=True))
        for row in rows:
            verdict, reason, extracted = _by_rules(row, outcomes.get(row["id"]))
            yield {
                "id": row["id"],
                "by": "rules",
                "answer": row["digest"],
                "grading": key,
                "grader": grader_version(),
                "verdict": verdict.value,
                "path": "VLMEvalKit",
                "reason": reason,
                "extracted": extracted,
            }

    def decide(self) -> Decide:
        """How a judge decides an answer: it is asked in VLMEvalKit's words, as often as its scoring wants."""
        compare = compare_answers(self.chosen)

        async def decide(judge: Judge, row: dict[str, Any]) -> JudgeResult:
            if self.chosen[row["benchmark"]][0].family == OPEN:
                return await compare(judge, row)
            return await self.judge_item(judge, row["benchmark"], self.item(row))

        return decide

    async def judge_item(self, judge: Judge, name: str, item: dict[str, Any]) -> JudgeResult:
        """Ask a judge until VLMEvalKit's scoring has all it needs."""
        replies: list[str] = []
        asked: set[str] = set()
        usage = Usage(cached=True)
        while True:
            outcome = (await asyncio.to_thread(self.outcomes, name, [item]))[0]
            if not _needs(outcome, "judge"):
                values = {key: item["given"][key] for key in sorted(asked)}
                return JudgeResult(
                    Verdict(outcome["verdict"]),
                    outcome.get("reason", ""),
                    SEVERAL.join(replies),
                    usage if replies else Usage(),
                    values,
                    VLM_READER_VERSION,
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
            asked.add(need["key"])

    def prompts(self, rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """All that a judge would be asked about answers that rules leave undecided, at most.

        What is asked later holds the reply to what was asked before, in whose place a long one stands.
        """
        for name in dict.fromkeys(row["benchmark"] for row in rows):
            same = [row for row in rows if row["benchmark"] == name]
            if self.chosen[name][0].family == OPEN:
                yield from compare_prompts(self.chosen)(same)
                continue
            items = [self.item(row) for row in same if row["raw"].strip()]
            while items:
                found = zip(items, self.outcomes(name, items), strict=True)
                asked = [(item, outcome["needs"]) for item, outcome in found if _needs(outcome, "judge")]
                for item, need in asked:
                    yield vlmeval_messages(need)
                    item["given"][need["key"]] = ANY_REPLY
                items = [item for item, _ in asked]


def _needs(outcome: Mapping[str, Any], kind: str) -> bool:
    return "needs" in outcome and outcome["needs"]["kind"] == kind


def _by_rules(row: Mapping[str, Any], outcome: Mapping[str, Any] | None) -> tuple[Verdict, str, str]:
    filtered = row["finish_reason"] == "content_filter"
    if outcome is None:  # nothing was said
        return (Verdict.UNDECIDED, VlmReason.FILTERED, "") if filtered else (Verdict.WRONG, Reason.NO_ANSWER, "")
    if "needs" in outcome:
        return Verdict.UNDECIDED, VlmReason.FILTERED if filtered else VlmReason.JUDGE, ""
    verdict = Verdict(outcome["verdict"])
    if filtered and verdict is not Verdict.RIGHT:
        return Verdict.UNDECIDED, VlmReason.FILTERED, ""
    return verdict, outcome.get("reason", ""), outcome.get("extracted", "")
