"""Replies that decide nothing: of a judge, a policy, or a grader that was stopped. They never become a verdict."""

import json
import re

import pytest

from rlfr_vlm.grading.pool import GradingPool
from rlfr_vlm.grading.verdict import Reason, undecided
from rlfr_vlm.judging.known_cases import KNOWN_CASES
from tests.eval.conftest import question_of
from tests.page_data import page_data

pytestmark = pytest.mark.usefixtures("without_figures")

# 1. A judge that repeats its instructions

WHY = [{"id": f"t{i}", "problem": f"Why {i}?", "answer": "because the winter was cold"} for i in range(2)]


def policy_why(body, n):
    """Even problems get a right answer, odd ones a wrong answer; rules decide neither."""
    i = int(re.search(r"\d+", question_of(body))[0])
    return f"\\boxed{{the {'cold' if i % 2 == 0 else 'warm'} season came before}}"


def healthy_judge(body, n=0):
    """Agrees with the known cases and with answers about the cold."""
    text = body["messages"][1]["content"]
    parts = re.findall(r"=== (?!END)[^=]* ===\n(.*?)\n=== END", text, re.DOTALL)
    known = {(case.question, case.answer): case.right for case in KNOWN_CASES}
    right = known.get((parts[0], parts[2]), "cold" in parts[2])
    return f"VERDICT {text.rsplit('VERDICT ', 1)[1][:6]}: {'CORRECT' if right else 'INCORRECT'}"


def about_the_season(body):
    """Whether a request is about an answer of the run, and not about a known case."""
    return "season came before" in body["messages"][1]["content"]


@pytest.fixture
def eager(monkeypatch):
    """Nearly no wait between tries."""
    monkeypatch.setattr("rlfr_vlm.servers.endpoint.LONGEST_DELAY", 0.02)


@pytest.fixture
def judged(serve, toy, run_eval, scores, alone):
    """Runs `rlfr-eval lm` with a judge that replies `reply(body)` to answers of the run; returns the scores."""

    def run(reply, server=None):
        server = server or serve(healthy_judge)
        server.script = lambda body, n: reply(body) if about_the_season(body) else healthy_judge(body)
        run.server = server
        run.policy = getattr(run, "policy", None) or serve(policy_why)
        run.code, _, run.err = run_eval(
            "lm", "--base-url", run.policy.url, "--suite", toy(rows=WHY), "--data-dir", "data", "--out", "run",
            "--judge-base-url", server.url,
        )  # fmt: skip
        assert run.code in (0, 3), run.err
        return scores(alone / "run")["benchmarks"]["toy"]

    return run


def counts(one):
    return one["right"], one["wrong"], one["undecided"]


def lines_of(body):
    return body["messages"][-1]["content"].splitlines()


def last(count):
    return lambda body: "\n".join(lines_of(body)[-count:])


def each(form, count=0):
    """The last `count` lines, or all, each in another form."""
    return lambda body: "\n".join(form(line) if line else line for line in lines_of(body)[-count:])


ECHOES = {
    "whole prompt": lambda body: "\n".join(lines_of(body)),
    "both messages": lambda body: "\n\n".join(message["content"] for message in body["messages"]),
    **{f"last {count} lines": last(count) for count in (1, 2, 3, 4, 5)},
    "option lines alone": lambda body: "\n".join(lines_of(body)[-4:-1]),
    "first option and the word or": lambda body: "\n".join(lines_of(body)[-4:-2]),
    "bold": each("**{}**".format),
    "bold last lines": each("**{}**".format, 4),
    "bold verdict words": lambda body: re.sub(r"(INCORRECT|CORRECT|UNSURE)", r"**\1**", last(4)(body)),
    "lower case": each(str.lower),
    "lower case last lines": each(str.lower, 4),
    "quoted": each("> {}".format),
    "list": each("- {}".format, 4),
    "code": lambda body: f"```\n{last(4)(body)}\n```",
    "introduced": lambda body: f"Understood. I will end with one line, either\n{last(4)(body)}",
    "with empty lines": lambda body: "\n\n".join(lines_of(body)[-4:]),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_judge_that_repeats_its_instructions_decides_nothing(judged, echo):
    """The option lines of the judge's own prompt are no verdict, whole or in part, whatever their form."""
    one = judged(ECHOES[echo])
    assert counts(one) == (0, 0, 2) and sum(one["undecided_reasons"].values()) == 2


def test_verdict_after_a_repeated_question_counts(judged):
    """A judge may repeat the question, the reference and the answer before its verdict."""
    one = judged(lambda body: "\n".join(lines_of(body)[:-5]) + "\n\n" + healthy_judge(body))
    assert counts(one) == (1, 1, 0)


def test_healthy_judge_decides_what_an_echo_left_open(judged):
    """An echo is not cached: the same server is asked again, and its verdicts count."""
    judged(ECHOES["whole prompt"])
    asked = len(judged.server.requests)
    one = judged(healthy_judge, judged.server)
    assert counts(one) == (1, 1, 0)
    assert sum(map(about_the_season, judged.server.requests[asked:])) == 2


# 2. A policy's answer that stands only in the reasoning

THOUGHT = "Two and two make four, so the result is \\boxed{4}."


def reply_with(make_reaction, message=None, usage=None, text=None, **choice):
    """A raw reply whose fields may be of any type."""
    entry = {"index": 0, "finish_reason": "stop", **choice}
    if text is None:
        entry["message"] = {"role": "assistant", **(message or {})}
    else:
        entry["text"] = text
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [entry]}
    if usage is not None:
        body["usage"] = usage
    return make_reaction(raw=json.dumps(body).encode())


@pytest.fixture
def measure(toy, run_eval, alone):
    """Runs `rlfr-eval lm` on `What is i plus i?`; returns exit code and all output."""

    def run(url, *more, n=1, name=None):
        code, out, err = run_eval(
            "lm", "--base-url", url, "--suite", name or toy(n), "--data-dir", "data", "--out", "run",
            "--max-tries", "1", *more,
        )  # fmt: skip
        return code, out + err

    return run


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", ["", None, "\n"], ids=repr)
def test_answer_only_in_the_reasoning_has_a_name_of_its_own(
    measure, serve, make_reaction, run_eval, alone, content, field
):
    """Reasoning without an answer is shown by `show`, and counted under its own name in scores.json and report.md."""
    usage = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
    server = serve(lambda body, n: reply_with(make_reaction, {"content": content, field: THOUGHT}, usage))
    measure(server.url)
    shown = run_eval("show", "run", "--id", "p0")[1]
    assert "reasoning" in shown and "Two and two make four" in shown
    assert "reasoning" in (alone / "run" / "scores.json").read_text()
    assert "reasoning" in (alone / "run" / "report.md").read_text()


def test_page_shows_an_answer_that_stands_only_in_the_reasoning(measure, serve, make_reaction, run_eval, alone):
    """report.html has the text of the reasoning where there is no answer."""
    server = serve(lambda body, n: reply_with(make_reaction, {"content": None, "reasoning_content": THOUGHT}))
    measure(server.url)
    run_eval("report", "run")
    assert "Two and two make four" in str(page_data((alone / "run" / "report.html").read_text())["answers"])


def test_reasoning_beside_an_answer_changes_nothing(measure, serve, make_reaction, scores, alone):
    """Where there is an answer, it is graded, and the reasoning is only stored."""
    message = {"content": "\\boxed{0}", "reasoning_content": THOUGHT}
    code, shown = measure(serve(lambda body, n: reply_with(make_reaction, message)).url)
    assert code == 0, shown
    assert counts(scores(alone / "run")["benchmarks"]["toy"]) == (1, 0, 0)


# 3. Fields of another type

NO_TEXT = {
    "object": {"answer": "\\boxed{0}"},
    "number": 0,
    "float": 0.5,
    "true": True,
    "false": False,
    "list of an image": [{"type": "image_url", "image_url": {"url": "data:,"}}],
    "list of numbers": [1, 2],
    "list of lists": [["\\boxed{0}"]],
    "list of null": [None],
    "part whose text is a number": [{"type": "text", "text": 0}],
    "part without text": [{"type": "text"}],
}
LISTS = ("list of numbers", "list of lists", "list of null", "part whose text is a number", "part without text")
REPLIES = {
    "choices are text": {"choices": "\\boxed{0}"},
    "choices are an object": {"choices": {"0": {"message": {"content": "\\boxed{0}"}}}},
    "choice is null": {"choices": [None]},
    "choice is text": {"choices": ["\\boxed{0}"]},
    "no message": {"choices": [{"index": 0, "finish_reason": "stop"}]},
    "message is text": {"choices": [{"index": 0, "finish_reason": "stop", "message": "\\boxed{0}"}]},
    "message is a list": {"choices": [{"index": 0, "finish_reason": "stop", "message": ["\\boxed{0}"]}]},
    "list": [{"choices": []}],
    "number": 5,
    "text": "\\boxed{0}",
    "null": None,
    "model is a number": {"model": 7, "choices": [{"finish_reason": "stop", "message": {"content": "\\boxed{0}"}}]},
}


def check_failed_request(alone, code, shown):
    """The request is missing with a reason in failures.jsonl, and no answer was stored."""
    failures = [json.loads(line) for line in (alone / "run" / "failures.jsonl").read_text().splitlines()]
    assert code == 3 and "Traceback" not in shown
    assert [row["id"] for row in failures] == ["toy/p0/0"] and failures[0]["kind"] and failures[0]["text"]
    assert (alone / "run" / "samples.jsonl").read_text() == ""


@pytest.mark.parametrize("content", NO_TEXT)
def test_content_that_is_no_text_is_a_failed_request(measure, serve, make_reaction, scores, alone, content):
    """Content of another type than text is named in failures.jsonl, and is asked for again by the next call."""
    usage = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
    server = serve(lambda body, n: reply_with(make_reaction, {"content": NO_TEXT[content]}, usage))
    check_failed_request(alone, *measure(server.url))
    server.script = lambda body, n: "\\boxed{0}"
    assert measure(server.url)[0] == 0
    assert counts(scores(alone / "run")["benchmarks"]["toy"]) == (1, 0, 0)


@pytest.mark.parametrize("content", NO_TEXT)
def test_completion_that_is_no_text_is_a_failed_request(measure, serve, make_reaction, alone, content):
    """The same holds for `/v1/completions`."""
    usage = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}
    server = serve(lambda body, n: reply_with(make_reaction, usage=usage, text=NO_TEXT[content]))
    check_failed_request(alone, *measure(server.url, "--prompt", "qwen-box"))


def test_content_in_parts_of_text_is_an_answer(measure, serve, make_reaction, scores, alone):
    """A list of text parts is joined, as before."""
    parts = [{"type": "text", "text": "so \\boxed"}, {"type": "text", "text": "{0}"}]
    server = serve(lambda body, n: reply_with(make_reaction, {"content": parts}))
    assert measure(server.url)[0] == 0
    assert counts(scores(alone / "run")["benchmarks"]["toy"]) == (1, 0, 0)


@pytest.mark.parametrize("reply", REPLIES)
def test_reply_of_another_shape_is_a_failed_request(measure, serve, make_reaction, alone, reply):
    """JSON that is no completion is named in failures.jsonl."""
    server = serve(lambda body, n: make_reaction(raw=json.dumps(REPLIES[reply]).encode()))
    check_failed_request(alone, *measure(server.url))


COUNTS = {
    "text": "seven",
    "number as text": "7",
    "huge": 10**400,
    "negative": -(10**6),
    "float": 7.5,
    "list": [7],
    "object": {"n": 7},
    "true": True,
    "null": None,
}
NULLS = ("both counts: null", "usage is empty")
USAGES = {
    **{f"both counts: {name}": {"prompt_tokens": count, "completion_tokens": count} for name, count in COUNTS.items()},
    **{
        f"{field}: {name}": {"prompt_tokens": 9, "completion_tokens": 9, field: COUNTS[name]}
        for field in ("prompt_tokens", "completion_tokens")
        for name in ("text", "huge", "negative", "list")
    },
    "usage is text": "seven",
    "usage is a list": [7],
    "usage is a number": 7,
    "usage is empty": {},
}


@pytest.mark.parametrize("usage", USAGES)
def test_usage_of_another_type_is_ignored(measure, serve, make_reaction, run_eval, scores, alone, usage):
    """Counts that are no counts change no score, and no later command fails because of them."""
    message = {"content": "\\boxed{0}"}
    server = serve(lambda body, n: reply_with(make_reaction, message, USAGES[usage]))
    for _ in range(2):
        code, shown = measure(server.url)
        assert code == 0, shown
        one = scores(alone / "run")["benchmarks"]["toy"]
        assert counts(one) == (1, 0, 0) and one["prompt_tokens_total"] in (0, 7, 9)
        assert one["completion_tokens"]["total"] in (0, 7, 9)
    assert len(server.requests) == 1
    for command in (["regrade", "run"], ["report", "run"], ["show", "run", "--id", "p0"]):
        assert run_eval(*command)[0] == 0


@pytest.mark.parametrize("content", NO_TEXT)
def test_judges_content_that_is_no_text_is_a_failed_request(judged, make_reaction, eager, content):
    """A judge's content of another type than text decides nothing, and is asked for again by the next call."""
    one = judged(lambda body: reply_with(make_reaction, {"content": NO_TEXT[content]}, {"completion_tokens": 3}))
    assert counts(one) == (0, 0, 2) and judged.code == 3
    assert all(reason.startswith("judge failed") for reason in one["undecided_reasons"])
    assert counts(judged(healthy_judge, judged.server)) == (1, 1, 0) and judged.code == 0


@pytest.mark.parametrize("usage", USAGES)
def test_judges_usage_of_another_type_is_ignored(judged, make_reaction, eager, alone, usage):
    """A verdict counts whatever the type of its usage, and no later call fails because of it."""
    for _ in range(2):
        one = judged(
            lambda body: reply_with(make_reaction, {"content": healthy_judge(body)}, USAGES[usage]),
            getattr(judged, "server", None),
        )
        assert counts(one) == (1, 1, 0) and judged.code == 0
    spent = json.loads((alone / "run" / "run.json").read_text())["judge_spent"]
    for tokens in (entry[count] for entry in spent for count in ("input_tokens", "output_tokens")):
        assert isinstance(tokens, int) and 0 <= tokens < 1e6


# 4. A grader that was stopped

FAULTS = {"time-out": Reason.TIME_OUT, "crash": Reason.CRASH}
ROOTS = [{"id": f"p{i}", "problem": f"What is the root {i}?", "answer": "\\sqrt{12}"} for i in range(2)]


def root(body, n):
    """Right for problem 0, wrong for problem 1; only algebra can tell."""
    return "\\boxed{2\\sqrt{3}}" if "root 0" in question_of(body) else "\\boxed{2\\sqrt{5}}"


@pytest.fixture
def stop_grader(monkeypatch):
    """Makes each comparison by algebra end with a reason; None mends the grader."""
    compare, reasons = GradingPool.compare, [None]

    def stopped(self, pairs):
        return [undecided("algebra", reasons[-1]) for _ in pairs] if reasons[-1] else compare(self, pairs)

    monkeypatch.setattr(GradingPool, "compare", stopped)
    return reasons.append


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["lm", "regrade"])
def test_answer_that_stopped_the_grader_is_graded_again(
    measure, serve, toy, run_eval, scores, alone, stop_grader, fault, command
):
    """A time-out or a crash of the grader is no verdict: the same command and `regrade` grade the answer again."""
    server, name = serve(root), toy(rows=ROOTS)
    stop_grader(FAULTS[fault])
    measure(server.url, name=name)
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert counts(one) == (0, 0, 2)
    stop_grader(None)
    code, shown = measure(server.url, name=name) if command == "lm" else run_eval("regrade", "run")[::2]
    assert code == 0, shown
    assert counts(scores(alone / "run")["benchmarks"]["toy"]) == (1, 1, 0) and len(server.requests) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_report_names_answers_that_stopped_the_grader(measure, serve, toy, alone, stop_grader, fault):
    """report.md names a single time-out or crash, also where a score stands all the same."""
    rows = [{"id": f"e{i}", "problem": f"What is the root 0 of {i}?", "answer": "2"} for i in range(199)]
    server = serve(lambda body, n: root(body, n) if "root 1?" in question_of(body) else "\\boxed{2}")
    stop_grader(FAULTS[fault])
    measure(server.url, name=toy(rows=[*rows, ROOTS[1]]))
    report = (alone / "run" / "report.md").read_text()
    assert "99.5" in report and FAULTS[fault] in report


def test_time_out_of_the_real_grader_is_tried_again(measure, serve, toy, scores, alone):
    """An answer that takes too long each time stays undecided, and each call adds its try to verdicts.jsonl."""
    rows = [{"id": "p0", "problem": "What is it?", "answer": "x"}]
    endless = r"\boxed{\int_0^\infty e^{-x^2}\sin(x^3+\ln x)dx}"
    server, name = serve(lambda body, n: endless), toy(rows=rows)
    tries = [0]
    for _ in range(2):
        measure(server.url, name=name)
        assert scores(alone / "run")["benchmarks"]["toy"]["undecided_reasons"] == {Reason.TIME_OUT: 1}
        tries.append(len((alone / "run" / "verdicts.jsonl").read_text().splitlines()))
    assert tries[0] < tries[1] < tries[2]
