"""Replies to VLMEvalKit's judge prompts that hold no answer decide nothing; answers that VLMEvalKit cannot read."""

import json
import sqlite3

import pytest

from rlfr_vlm.grading.pool import GradingPool
from rlfr_vlm.grading.verdict import Reason, undecided
from tests.end_to_end.eval.vlm.test_runs import BY_HAND
from tests.eval.vlm.sets import SETS, dyna, judge, text_of, vision, write_tsv

# data set -> number of rows that a judge decides
JUDGED = {name: count for name in SETS if (count := sum(bool(sample.judge) for sample in SETS[name]))}
EXTRACTED = ("MathVerse_MINI", "MathVision_MINI")  # a judge extracts answers of any form

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def about_a_row(body):
    """Whether a request is about an answer of the run, and not about a known case."""
    return any(f"{name}-" in text_of(body) for name in SETS)


def message_only(make_reaction, **message):
    """A raw reply with these fields of the message."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    body = {"id": "x", "object": "chat.completion", "created": 0, "choices": [choice], "usage": USAGE}
    return lambda asked: make_reaction(raw=json.dumps({**body, "model": asked["model"]}).encode())


@pytest.fixture
def judged(vlm, serve, scores, alone):
    """Runs `rlfr-eval vlm` with a judge that replies `reply(body)` to answers of the run; returns the scores."""

    def run(reply, data, out="run", more=()):
        run.server = getattr(run, "server", None) or serve(judge, models=({"id": "j"},))
        run.server.script = lambda body, n: reply(body) if about_a_row(body) else judge(body)
        run.code, run.out, run.err = vlm("--judge-base-url", run.server.url, *more, data=data, out=out)
        assert run.code in (0, 3), run.err
        return scores(alone / out)["benchmarks"]

    return run


def check_undecided(found):
    """Every answer that a judge decides is undecided, with a reason."""
    for name, one in found.items():
        assert (one["judged"], one["undecided"]) == (0, JUDGED[name]), name
        assert sum(one["undecided_reasons"].values()) == JUDGED[name] and "" not in one["undecided_reasons"], name


def check_decided(found):
    """Every answer is decided as by hand."""
    for name, one in found.items():
        assert (one["judged"], one["undecided"]) == (JUDGED[name], 0), name
        assert one["accuracy"] == pytest.approx(BY_HAND[name]), name


def cached(alone):
    """The path of the cache of judge replies, and its rows."""
    path = next((alone.parent / "cache").rglob("*.sqlite"))
    with sqlite3.connect(path) as database:
        return path, database.execute("SELECT verdict, reply FROM verdicts").fetchall()


# 1. Empty replies

EMPTY = {
    "empty": lambda make: lambda body: make(text=""),
    "null": lambda make: lambda body: make(text=None),
    "white space": lambda make: lambda body: make(text=" \n\n"),
    "empty, stopped by a content filter": lambda make: lambda body: make(text="", finish_reason="content_filter"),
    "null, stopped by a content filter": lambda make: lambda body: make(text=None, finish_reason="content_filter"),
    "answer, stopped by a content filter": lambda make: (
        lambda body: make(text=judge(body), finish_reason="content_filter")
    ),
    "reasoning_content": lambda make: message_only(make, content=None, reasoning_content="It is B, or 1."),
    "reasoning": lambda make: message_only(make, content="", reasoning="It is B, or 1."),
    "reasoning in tags": lambda make: lambda body: make(text="<think>It is B, or 1.</think>"),
}


@pytest.mark.parametrize("form", EMPTY)
def test_empty_reply_decides_nothing_and_a_healthy_judge_is_asked_again(judged, make_reaction, alone, form):
    """A reply without text is undecided with a reason and not cached, and the next call asks the judge again."""
    check_undecided(judged(EMPTY[form](make_reaction), tuple(JUDGED)))
    assert cached(alone)[1] == []
    asked = len(judged.server.requests)
    check_decided(judged(judge, tuple(JUDGED)))
    assert judged.code == 0
    assert sum(map(about_a_row, judged.server.requests[asked:])) >= sum(JUDGED.values())


@pytest.mark.parametrize("reply", ["", "\n"], ids=repr)
def test_empty_reply_in_the_cache_is_not_used(judged, alone, reply):
    """An empty reply that an older version cached is no verdict: the judge is asked again."""
    data = ("MathVista_MINI", "LogicVista", "WeMath")
    judged(judge, data)
    path, stored = cached(alone)
    assert stored
    with sqlite3.connect(path) as database:
        database.execute("UPDATE verdicts SET verdict = '', reply = ?", (reply,))
    asked = len(judged.server.requests)
    check_decided(judged(judge, data, out="other"))
    assert sum(map(about_a_row, judged.server.requests[asked:])) == sum(JUDGED[name] for name in data)


# 2. Replies that are no extracted answer

JUNK = {
    "refusal": "I'm sorry, I can't help with that.",
    "refusal with another apostrophe": "I’m sorry, but I can’t assist with that request.",
    "refusal without an excuse": "I cannot extract an answer from this response.",
    "refusal of a language model": "As an AI language model, I am unable to help with this.",
    "labelled refusal": "Extracted Answer: I'm sorry, I can't help with that.",
    "refusal in capitals": "SORRY, I CAN'T HELP WITH THAT.",
    "bold refusal": "**I apologize, but I can't comply with this request.**",
    "HTML": "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>",
    "HTML with a type": "<!DOCTYPE html><html><body><h1>Service Unavailable</h1></body></html>",
    "lines of HTML": "<html>\n<body>\n<h1>404 Not Found</h1>\n</body>\n</html>",
    "JSON error": '{"error": {"message": "The server is overloaded", "type": "server_error", "code": 503}}',
    "failure of VLMEvalKit": "Failed to obtain answer via API.",
    "opening alone": "Sure, here is the extracted answer:",
    "offer": "Sure! I can help you with that. Please provide the response.",
    "question": "Could you please provide the model's response?",
    "label alone": "Extracted Answer:",
    "code fence alone": "```",
    "replacement characters": "\ufffd\ufffd\ufffd",
    "punctuation": "...",
}


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_no_extracted_answer(judged, alone, junk):
    """A refusal, an error page or talk where an answer is to be extracted leaves the answer undecided."""
    found = judged(lambda body: "0" if "[Standard Answer]" in text_of(body) else JUNK[junk], EXTRACTED)
    check_undecided(found)
    assert cached(alone)[1] == []


def test_repeated_prompt_is_no_answer(judged):
    """A judge that repeats VLMEvalKit's prompt decides nothing."""
    check_undecided(judged(text_of, tuple(JUDGED)))


# 3. Content and usage of another type


@pytest.mark.parametrize(
    "content",
    [{"answer": "B"}, 1, 0, True, [{"type": "image_url"}], [1]],
    ids=json.dumps,
)
def test_content_that_is_no_text_is_a_failed_request(judged, make_reaction, monkeypatch, content):
    """A judge's content of another type than text decides nothing, and is asked for again by the next call."""
    monkeypatch.setattr("rlfr_vlm.servers.endpoint.LONGEST_DELAY", 0.02)
    data = ("MathVerse_MINI", "LogicVista")
    found = judged(message_only(make_reaction, content=content), data)
    check_undecided(found)
    assert judged.code == 3
    assert all(reason.startswith("judge failed") for one in found.values() for reason in one["undecided_reasons"])
    check_decided(judged(judge, data))


# 4. A policy's answer that stands only in the reasoning


@pytest.mark.parametrize("content", ["", None], ids=repr)
def test_answer_only_in_the_reasoning_has_a_name_of_its_own(vlm, serve, make_reaction, run_eval, alone, content):
    """Reasoning without an answer is shown by `show`, and counted under its own name in scores.json and report.md."""
    reply = message_only(make_reaction, content=content, reasoning_content="The third figure fits best, so B.")
    server = serve(lambda body, n: reply(body))
    vlm(data=("LogicVista",), server=server)
    shown = run_eval("show", "run", "--id", "LogicVista/0/0")[1]
    assert "reasoning" in shown and "The third figure fits best" in shown
    assert "reasoning" in (alone / "run" / "scores.json").read_text()
    assert "reasoning" in (alone / "run" / "report.md").read_text()


# 5. A grader that was stopped


@pytest.fixture
def replace_set(lmu, run_eval, monkeypatch):
    """Writes other rows of a data set, and accepts the file."""

    def replace(name, samples):
        monkeypatch.setitem(SETS, name, samples)
        write_tsv(lmu, name)
        assert run_eval("fetch", "--vlm", name, "--relock", "--data-dir", str(lmu))[0] == 0

    return replace


@pytest.mark.parametrize("command", ["vlm", "regrade"])
@pytest.mark.parametrize("reason", [Reason.TIME_OUT, Reason.CRASH])
def test_answer_that_stopped_the_grader_is_graded_again(
    vlm, replace_set, run_eval, scores, alone, monkeypatch, reason, command
):
    """A time-out or a crash of the grader is no verdict: the same command and `regrade` grade the answer again."""
    replace_set("MathVision_MINI", [vision("\\sqrt{12}", "2\\sqrt{3}", True)])
    with monkeypatch.context() as stopped:
        stopped.setattr(GradingPool, "compare", lambda self, pairs: [undecided("algebra", reason) for _ in pairs])
        vlm(data=("MathVision_MINI",))
        one = scores(alone / "run")["benchmarks"]["MathVision_MINI"]
        assert (one["right"], one["wrong"], one["undecided"]) == (0, 0, 1)
    code = (vlm(data=("MathVision_MINI",)) if command == "vlm" else run_eval("regrade", "run"))[0]
    one = scores(alone / "run")["benchmarks"]["MathVision_MINI"]
    assert code == 0 and (one["right"], one["wrong"], one["undecided"]) == (1, 0, 0)


# 6. DynaMath in the paper's words


def test_preset_paper_asks_dynamath_for_a_form_that_is_read(judged, replace_set, vlm, serve):
    """A policy that answers DynaMath's questions without options in the form it is asked for gets right verdicts."""
    answers = ["4", "y = 2x", "8"]
    golds = ["4", "y = 2x", "7"]
    replace_set(
        "DynaMath",
        [
            dyna("text", gold, "", gold == answer, (answer,), i, 1)
            for i, (answer, gold) in enumerate(zip(answers, golds, strict=True))
        ],
    )

    def obedient(body, n):
        text = text_of(body)
        i = int(text.split("[DynaMath-")[1][0])
        if "short answer" in text:
            return json.dumps({"solution": f"by looking (DynaMath-{i})", "short answer": answers[i]})
        assert "boxed" in text
        return f"I look at it (DynaMath-{i}).\nAnswer: \\boxed{{{answers[i]}}}"

    vlm.server = serve(obedient)
    one = judged(judge, ("DynaMath",), more=("--preset", "paper"))["DynaMath"]
    assert (one["right"], one["wrong"], one["undecided"]) == (2, 1, 0)
