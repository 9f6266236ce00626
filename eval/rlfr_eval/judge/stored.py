"""Ask a judge about the answers of a run, and store each verdict when it arrives."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import JudgeVerdict, Sample
from rlfr_vlm.judging.client import Judge, JudgeResult

Decide: TypeAlias = Callable[[Judge, Sample], Awaitable[JudgeResult]]  # judges one stored answer


async def judge_rows(
    judge: Judge,
    samples: Iterator[Sample],
    decide: Decide,
    store: RunStore,
    on_judged: Callable[[JudgeResult], None] = lambda result: None,
) -> None:
    """Judge answers with the judge's concurrency; see `Judge.judge_all`."""

    def store_verdict(sample: Sample, result: JudgeResult) -> None:
        store.add_verdicts(verdict_of(sample, judge.identity, result))
        on_judged(result)

    await judge.judge_all(samples, decide, store_verdict)


def verdict_of(sample: Sample, identity: str, result: JudgeResult) -> JudgeVerdict:
    """Return a judge's verdict as it is stored."""
    return JudgeVerdict(
        id=sample.id,
        answer=sample.digest,
        judge=identity,
        verdict=result.verdict,
        reason=result.reason,
        reply=result.reply,
        cached=result.usage.cached,
        input_tokens=result.usage.input_tokens,
        output_tokens=result.usage.output_tokens,
        given=result.values,
        reader=result.reader,
        extracted=sample.extracted,
        points=result.points,
        time=round(time.time(), 3),
    )
