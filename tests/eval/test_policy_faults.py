"""Faulty replies of a policy, each with the state it leads to; no answer is decided against the truth.

Problems p0 and p1 get a right and a wrong answer. Of p2 and p3, which would get the same, the reply is faulty.
"""

import json

import pytest

from tests.eval.conftest import question_of
from tests.eval.faults import FAILED, HARMLESS, SLOW, STOPPING, always, encoded, message, saying

pytestmark = pytest.mark.slow  # a whole run each

ANSWERS = {"p0": "\\boxed{0}", "p1": "\\boxed{-1}", "p2": "\\boxed{4}", "p3": "\\boxed{-1}"}
TRUE = {"p0": "right", "p1": "wrong", "p2": "right", "p3": "wrong"}
FAULTY = ("p2", "p3")
STATES = {  # state -> right, wrong, undecided, and how many of the undecided ones are missing
    "missing": (1, 1, 2, 2),
    "undecided": (1, 1, 2, 0),
    "no answer": (1, 3, 0, 0),  # wrong in fact: the reply answers nothing
    "right or undecided": (2, 1, 1, 0),
    "graded": (2, 2, 0, 0),
}


def long_text(text):
    return "Let us see. " * 200_000 + text


STATE_OF = {
    **{name: (fault, "missing") for name, fault in FAILED.items()},
    **{name: (fault, "graded") for name, fault in HARMLESS.items()},
    "cut off behind the answer": (saying(finish_reason="length"), "graded"),
    "cut off before the answer": (always(text="Let us see", finish_reason="length"), "no answer"),
    "stopped by a content filter": (saying(finish_reason="content_filter"), "right or undecided"),
    "stopped by a content filter before the answer": (always(text="Let", finish_reason="content_filter"), "undecided"),
    "only reasoning": (message(lambda text: None, reasoning_content="\\boxed{7}"), "undecided"),
    "only reasoning, by another name": (message(lambda text: "", reasoning="\\boxed{7}"), "undecided"),
    "reasoning that does not end": (message(lambda text: f"<think>Perhaps {text}"), "no answer"),
    "end token alone": (always(text="", tokens=1), "no answer"),
    "white space": (always(text=" \n\t"), "no answer"),
    "call of a tool": (message(lambda text: None, tool_calls=[{"id": "x", "type": "function"}]), "no answer"),
    "refusal": (message(lambda text: None, refusal="I cannot help with that."), "no answer"),
    "megabytes": (message(long_text), "graded"),
    "NUL characters": (message(lambda text: f"so\0 {text}\0"), "graded"),
    "half of a surrogate pair": (message(lambda text: f"\ud83d {text} \udc00"), "graded"),
    "control characters": (message(lambda text: f"\x1b[31m\x07{text}\r\n\x85\u2028"), "graded"),
    "answer with an escaped NUL": (encoded(lambda body: body.replace(b"boxed{", b"boxed{\\u0000")), "graded"),
}
STOPPED = {**STOPPING, "HTTP 400, too long": always(text="maximum context length is 70 tokens", status=400)}


@pytest.fixture
def measure(toy, serve, run_eval):
    """Runs `rlfr-eval lm` with a policy whose replies to p2 and p3 are faulty; returns exit code and all output."""
    name = toy(len(ANSWERS))

    def script(body, n):
        problem = f"p{question_of(body).split('What is ')[1].split()[0]}"
        fault = measure_it.fault if problem in FAULTY else saying()
        return fault(ANSWERS[problem], body)

    server = serve(script)

    def measure_it(fault, *more):
        measure_it.fault = fault
        code, out, err = run_eval(
            "lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run",
            "--max-tries", "1", "--concurrency", "1", *more,
        )  # fmt: skip
        assert "Traceback" not in out + err
        return code, out + err

    measure_it.server = server
    return measure_it


def verdicts(alone):
    """Problem -> verdict of the last line about it."""
    lines = map(json.loads, (alone / "run" / "verdicts.jsonl").read_text().splitlines())
    return {row["id"].split("/")[1]: row["verdict"] for row in lines}


def counts(one):
    return one["right"], one["wrong"], one["undecided"], one["missing"]


@pytest.mark.parametrize("case", STATE_OF)
def test_faulty_reply_leads_to_its_state_and_a_healthy_server_completes_it(measure, scores, alone, run_eval, case):
    fault, state = STATE_OF[case]
    code, shown = measure(fault, *(["--time-limit", "2"] if case in SLOW else []))
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert counts(one) == STATES[state], one
    assert code == (3 if state == "missing" else 0), shown
    true = TRUE | (dict.fromkeys(FAULTY, "wrong") if state == "no answer" else {})
    found = verdicts(alone)
    assert all(verdict in ("undecided", true[problem]) for problem, verdict in found.items())
    assert set(found) == set(ANSWERS) - (set(FAULTY) if state == "missing" else set())
    assert bool((alone / "run" / "failures.jsonl").read_text()) == (state == "missing")
    assert run_eval("report", "run")[0] == 0 and run_eval("show", "run", "--id", max(found))[0] == 0
    asked = len(measure.server.requests)
    assert measure(saying())[0] == 0  # what is missing is asked for again, and nothing else
    assert len(measure.server.requests) - asked == one["missing"]
    expected = STATES["graded" if state == "missing" else state]
    assert counts(scores(alone / "run")["benchmarks"]["toy"]) == expected


@pytest.mark.parametrize("case", STOPPED)
def test_reply_that_no_other_request_can_mend_stops_the_run(measure, scores, alone, case):
    """Answers before it are kept, none is made up, and a healthy server completes the run."""
    code, _ = measure(STOPPED[case])
    samples = (alone / "run" / "samples.jsonl").read_text().splitlines()
    assert code == 2 and [json.loads(line)["problem"] for line in samples] == ["p0", "p1"]
    assert not (alone / "run" / "scores.json").exists()
    assert measure(saying())[0] == 0
    assert counts(scores(alone / "run")["benchmarks"]["toy"]) == STATES["graded"]
