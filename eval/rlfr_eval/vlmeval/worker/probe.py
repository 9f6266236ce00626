"""Try VLMEvalKit's evaluation of a single row: with answers, and with replies of a judge in many forms.

What comes out says whether rows of a set can be evaluated one by one, whether a judge is asked, whether its replies
move the score, and where the score stands. Nothing is sent to anybody.
"""

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlfr_eval.vlmeval.worker.replay_judge import MOST_PROMPTS
from rlfr_eval.vlmeval.worker.tables import Table
from rlfr_eval.vlmeval.worker.upstream_evaluation import evaluate_upstream

if TYPE_CHECKING:
    import pandas

LONGEST = 120.0  # seconds after which no further reply is tried; far more than a usual evaluation needs
NO_ANSWER = "I would say that it looks rather like a thing of that kind to me, though I may well be mistaken in this."
SHORT = ("A", "B", "Yes", "No")  # answers, of which one is wrong
OFFERED = re.compile(r"\[\[?[A-Za-z]{2,12}\]\]?|(?<=['\"`])[\w.]{1,12}(?=['\"`])")  # a reply that a prompt asks for
MOST_OFFERED = 12
FORMS = ("{}", "[ANSWER]{}[/ANSWER]", "\\boxed{{{}}}", "<answer>{}</answer>")  # of an answer that a judge extracts
REPLIES = (  # forms of a verdict or a mark
    "1", "0", "yes", "no", "True", "False", "Correct", "Incorrect", "10", "100", "0.5", "safe", "unsafe",
    "[[1]]", "[[5]]", "[[10]]", "[YES]", "[NO]", "Judgement: 1", "\n".join(["YES"] * 8), "\n".join(["NO"] * 8),
    "\n".join(["2"] * 8), "\n".join(["0"] * 8), '{"score": 1}', '{"score": 0}', '{"correct": true}',
    "[Begin Correctness]yes[End Correctness]", "[Begin Correctness]no[End Correctness]",
    "<score>1</score>", "<score>0</score>", "correct: yes", "correct: no",
)  # fmt: skip


def probe(table: Table, row: "pandas.Series") -> list[dict[str, Any]]:
    """Return what VLMEvalKit makes of the reference, of other short answers, and of one that rules cannot decide.

    Each trial has `answer`, `reply` (the judge's to all prompts; None where it was not asked), `prompts` (how many),
    `result` and `failed` as `evaluate_upstream` returns them.
    """
    started = time.monotonic()
    gold = str(row["answer"])
    trials: list[dict[str, Any]] = []
    for answer in dict.fromkeys([gold, *SHORT, NO_ANSWER]):
        trial, prompt = _trial(table, row, answer, None)
        if not prompt:
            trials.append(trial)
        elif answer == NO_ANSWER:
            for reply in dict.fromkeys(_replies(gold, prompt)):
                if time.monotonic() - started < LONGEST:
                    trials.append(_trial(table, row, answer, reply)[0])
    return trials


def _replies(gold: str, prompt: str) -> Iterator[str]:
    """Yield replies: the reference and another option in some forms, what the prompt offers, and usual verdicts."""
    extracted = [form.format(text) for form in FORMS for text in (gold, "A" if gold == "B" else "B")]
    yield from [*extracted[:2], *REPLIES[:4]]
    yield from list(dict.fromkeys(OFFERED.findall(prompt)))[-MOST_OFFERED:]
    yield from [*extracted, *REPLIES]


def _trial(table: Table, row: "pandas.Series", answer: str, reply: str | None) -> tuple[dict[str, Any], str]:
    """Evaluate a row with a reply to each prompt; without a reply, stop at the first prompt, and return it, too."""
    given: dict[str, object] = {}
    while True:
        evaluation = evaluate_upstream(table, {str(row["index"]): answer}, given, one_row=True)
        needs, prompts = evaluation["needs"], len(given)
        if needs and reply is not None and prompts < MOST_PROMPTS:
            given[needs[0]["key"]] = reply
            continue
        result, failed = evaluation["result"], evaluation["failed"]
        if needs:
            result, failed = [], f"it asks its judge more than {MOST_PROMPTS} things"
        trial = {"answer": answer, "reply": reply, "prompts": prompts, "result": result, "failed": failed}
        return trial, needs[0]["prompt"] if needs and reply is None else ""
