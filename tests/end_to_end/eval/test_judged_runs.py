"""Runs with a judge: undecided is never a score, what a judge cannot say stays open, and another call completes it."""

import json
import re

import pytest

from rlfr_vlm.judging.client import tokens_at_most
from rlfr_vlm.judging.prompt import judge_messages
from rlfr_vlm.servers.endpoint import Endpoint

ROWS = [
    *({"id": f"n{i}", "problem": f"Number {i}?", "answer": str(i)} for i in range(6)),
    *({"id": f"t{i}", "problem": f"Why {i}?", "answer": "because the winter was cold"} for i in range(4)),
]


def policy(body, n):
    """Numbers: all right. Free text, which rules leave undecided: even ones mean the same."""
    text = body["messages"][-1]["content"]
    i = int(re.search(r"\d+", text)[0])
    if text.startswith("Number"):
        return f"\\boxed{{{i}}}"
    return f"\\boxed{{the {'cold' if i % 2 == 0 else 'warm'} season came before}}"


def judge(body, n):
    """Right for the even ones, and for known cases as `judge check` has them."""
    from rlfr_vlm.judging.known_cases import KNOWN_CASES

    text = body["messages"][1]["content"]
    parts = re.findall(r"=== (?!END)[^=]* ===\n(.*?)\n=== END", text, re.DOTALL)
    known = {(case.question, case.answer): case.right for case in KNOWN_CASES}
    right = known.get((parts[0], parts[2]), "cold" in parts[2])
    return f"I compared them.\nVERDICT {text.rsplit('VERDICT ', 1)[1][:6]}: {'CORRECT' if right else 'INCORRECT'}"


@pytest.fixture
def start(serve, toy, run_eval):
    """Runs `rlfr-eval lm` on the rows above; more arguments follow."""
    server, name = serve(policy), toy(rows=ROWS)

    def run(*arguments, out="run"):
        return run_eval(
            "lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", out, *arguments
        )

    run.server = server
    return run


def test_without_a_judge_bounds_show_and_no_number_stands(start, scores, alone):
    code, out, _ = start()
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 0 and (one["right"], one["wrong"], one["undecided"]) == (6, 0, 4)
    assert (one["accuracy"], one["coverage"], one["lower"], one["upper"]) == (1.0, 0.6, 0.6, 1.0)
    assert not one["headline"] and one["undecided_reasons"] == {"free text": 4}
    row = next(line for line in out.splitlines() if line.startswith("toy"))
    assert "undecided" in row and "(100.0)" not in row and "60.0 to 100.0" in row
    assert "40.0 % undecided (4 free text), more than 1 %" in out
    assert "(100.0)" in start("--show-undecided")[1]


def test_a_judge_decides_what_rules_cannot_and_only_that(start, serve, scores, alone):
    server = serve(judge)
    code, out, err = start("--judge-base-url", server.url)
    found = scores(alone / "run")
    one = found["benchmarks"]["toy"]
    assert code == 0 and found["judge"] == f"m ({server.url})"
    assert (one["right"], one["wrong"], one["undecided"], one["judged"]) == (8, 2, 0, 4)
    assert one["accuracy"] == 0.8 and one["headline"]
    assert one["rules_only"] == {
        "accuracy": 1.0,
        "ci95": one["rules_only"]["ci95"],
        "coverage": 0.6,
        "lower": 0.6,
        "upper": 1.0,
    }
    assert len(server.requests) == 12 + 4  # known cases, and what was undecided
    assert "judge: m (http" in out and "80.0" in out and "12 of 12 known cases" in err
    start("--judge-base-url", server.url)
    assert len(start.server.requests) == 10  # nothing is asked twice, but the known cases are put to it again
    start("--judge-base-url", server.url, out="other")
    assert len(server.requests) == 12 + 4 + 12 + 12  # another run takes verdicts from the cache
    assert found["judge_spent"] == [{"judge": f"m ({server.url})", "input_tokens": 16 * 11, "output_tokens": 16 * 7,
                                     "usd": 0.0}]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 500}, "judge failed: server error"),
        ({"status": 400, "text": "maximum context length is 9"}, "judge failed: too long"),
        ({"text": "", "tokens": None}, "judge failed: empty"),
        ({"text": "nonsense"}, "judge gave no verdict"),
        ({"text": "VERDICT: CORRECT", "finish_reason": "length"}, "judge cut off"),
    ],
)
def test_a_judge_that_fails_decides_nothing_and_a_healthy_one_completes(
    start, serve, make_reaction, scores, alone, monkeypatch, fault, reason
):
    monkeypatch.setattr("rlfr_vlm.servers.endpoint.LONGEST_DELAY", 0.02)
    broken = [True]

    def script(body, n):
        checking = "season" not in body["messages"][1]["content"]
        return judge(body, n) if checking or not broken[0] else make_reaction(**fault)

    server = serve(script)
    code, _, _ = start("--judge-base-url", server.url)
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == (3 if reason.startswith("judge failed") else 0)
    assert (one["right"], one["wrong"], one["undecided"], one["headline"]) == (6, 0, 4, False)
    assert one["undecided_reasons"] == {reason: 4}
    replies = [json.loads(line) for line in (alone / "run" / "verdicts.jsonl").read_text().splitlines()]
    assert all("reply" in row for row in replies if row["by"] == "judge")
    broken[0] = False
    assert start("--judge-base-url", server.url)[0] == 0
    assert scores(alone / "run")["benchmarks"]["toy"]["accuracy"] == 0.8


def test_an_unfit_judge_is_refused_unless_forced(start, serve, scores, alone):
    def yes(body, n):
        return f"VERDICT {body['messages'][1]['content'].rsplit('VERDICT ', 1)[1][:6]}: CORRECT"

    server = serve(yes)
    code, _, err = start("--judge-base-url", server.url)
    assert (
        code == 2 and "is not fit" in err and "2 fooled by an injected instruction" in err and "--judge-force" in err
    )
    assert start.server.requests == []  # found out before the model is asked anything
    assert start("--judge-base-url", server.url, "--judge-force")[0] == 0
    assert scores(alone / "run")["benchmarks"]["toy"]["accuracy"] == 1.0


def test_a_budget_stops_hard_and_the_rest_is_undecided(start, serve, scores, alone, monkeypatch):
    server = serve(judge)
    monkeypatch.setenv("JUDGE_CONCURRENCY", "1")
    assert start("--judge-base-url", server.url, "--judge", "none")[0] == 0
    messages = judge_messages("Why 0?", ["because the winter was cold"], "the cold season came before")
    worst_case = tokens_at_most(messages) + 1024
    # each reply uses 18 tokens: 12 known cases, one question, and then room for exactly one more
    budget = 12 * 18 + 18 + worst_case
    code, _, err = start("--judge-base-url", server.url, "--judge-budget-tokens", str(budget), "--no-judge-cache")
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 3 and one["undecided_reasons"] == {"judge budget used up": 2} and one["judged"] == 2
    assert "2 judge budget used up" in err and len(server.requests) == 14
    code, _, err = start("--judge-base-url", server.url, "--judge-budget-tokens", "100", out="other")
    assert code == 2 and "budget is too small even to check it" in err
    assert start("--judge-base-url", server.url)[0] == 0
    code, _, err = start("--judge-base-url", server.url, "--judge-budget-usd", "1", out="other")
    assert code == 2 and "set JUDGE_PRICE_INPUT" in err


def test_regrade_asks_the_model_nothing(start, serve, run_eval, scores, alone):
    start()
    asked = len(start.server.requests)
    code, out, _ = run_eval("regrade", "run", "--dry-run")
    assert code == 0 and out.startswith("4 answers for the judge; at most ")
    server = serve(judge)
    code, out, _ = run_eval("regrade", "run", "--judge-base-url", server.url)
    assert code == 0 and "80.0" in out and scores(alone / "run")["judge"] == f"m ({server.url})"
    code, out, _ = run_eval("regrade", "run", "--judge", "none")
    assert code == 0 and "none (rules only)" in out and scores(alone / "run")["judge"] is None
    # verdicts of one judge are not those of another
    other = serve(judge, models=({"id": "other"},))
    assert run_eval("regrade", "run", "--judge-base-url", other.url)[0] == 0
    assert len(other.requests) == 16 and len(start.server.requests) == asked
    assert run_eval("regrade", "data")[0] == 2 and not (alone / "data" / ".lock").exists()


def test_regrade_renews_the_extraction_and_what_the_judge_is_shown(start, serve, run_eval, scores, alone):
    """A run of an older extractor, whose judge was shown that extractor's answer and called it wrong."""
    start()
    samples, verdicts = alone / "run" / "samples.jsonl", alone / "run" / "verdicts.jsonl"
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    old = {row["id"]: row["digest"] for row in rows if row["id"] == "toy/t0/0"}
    rows = [row | {"extracted": "something older", "how": "phrase"} if row["id"] in old else row for row in rows]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    server = serve(judge)
    judged = {"id": "toy/t0/0", "by": "judge", "answer": old["toy/t0/0"], "judge": f"m ({server.url})",
              "verdict": "wrong", "reason": "", "reply": "VERDICT: INCORRECT"}  # fmt: skip
    with verdicts.open("a") as stream:
        stream.write(json.dumps(judged) + "\n")
    assert run_eval("regrade", "run", "--judge-base-url", server.url)[0] == 0
    asked = [body["messages"][1]["content"] for body in server.requests if "season" in body["messages"][1]["content"]]
    assert len(asked) == 4 and not any("something older" in text for text in asked)
    assert scores(alone / "run")["benchmarks"]["toy"]["right"] == 8  # t0 is right after all
    assert "the cold season came before" in run_eval("show", "run", "--id", "t0")[1]
    assert "something older" not in run_eval("show", "run", "--id", "t0")[1]
    count = len(server.requests)
    assert run_eval("regrade", "run", "--judge-base-url", server.url)[0] == 0
    assert len(server.requests) == count + 12  # the known cases; no answer is judged again


def test_a_judges_verdict_of_an_older_run_stands_where_the_extraction_is_the_same(
    start, serve, run_eval, scores, alone
):
    server = serve(judge)
    start("--judge-base-url", server.url)
    verdicts = alone / "run" / "verdicts.jsonl"
    rows = [json.loads(line) for line in verdicts.read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if key not in ("extracted", "how")} for row in rows]
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in rows))  # as they were written before
    count = len(server.requests)
    assert run_eval("regrade", "run", "--judge-base-url", server.url)[0] == 0
    assert len(server.requests) == count + 12  # the known cases; no answer is judged again
    assert scores(alone / "run")["benchmarks"]["toy"]["judged"] == 4


def test_no_judge_for_benchmarks_that_allow_none(serve, toy, run_eval, scores, alone):
    server = serve(judge)
    name = toy(rows=ROWS, more='judge = "never"')
    arguments = ("lm", "--base-url", serve(policy).url, "--suite", name, "--data-dir", "data", "--out", "run")
    assert run_eval(*arguments, "--judge-base-url", server.url)[0] == 0
    assert server.requests == [] and scores(alone / "run")["benchmarks"]["toy"]["undecided"] == 4


def test_responses_without_an_answer(serve, make_reaction, toy, run_eval, scores, alone):
    def silent(body, n):
        i = int(re.search(r"\d+", body["messages"][-1]["content"])[0])
        return make_reaction("It depends.", finish_reason="length" if i == 0 else "stop")

    for more, expected in (("", (2, 0)), ('no_answer = "undecided"', (1, 1))):
        name = toy(2, name=f"toy{len(more)}", more=more)
        run_eval(
            "lm", "--base-url", serve(silent).url, "--suite", name, "--data-dir", "data", "--out", f"run{len(more)}"
        )
        one = next(iter(scores(alone / f"run{len(more)}")["benchmarks"].values()))
        assert (one["wrong"], one["undecided"]) == expected  # one that was cut off is wrong in any case
        assert (one["no_answer_found"], one["truncated"]) == (1.0, 0.5)


def test_judge_check_prints_and_exits(serve, run_eval, monkeypatch):
    assert "No judge is named" in run_eval("judge", "check")[2]
    server = serve(judge)
    monkeypatch.setenv("API_URL", server.url)
    code, out, _ = run_eval("judge", "check")
    assert code == 0 and out.count("\nok ") == 12 and "12 of 12" in out and "median latency" in out
    assert json.loads(run_eval("judge", "check", "--json")[1])["passed"] is True
    assert len(server.requests) == 24  # a check is never answered from the cache
    code, out, _ = run_eval("judge", "check", "--judge-base-url", serve(lambda body, n: "yes").url)
    assert code == 2 and "FAILED" in out
    code, _, err = run_eval("judge", "check", "--judge-model", "gpt")
    assert code == 2 and "does not serve 'gpt'; it serves m. Name another with JUDGE_MODEL" in err


def numbers(body, n):
    """A policy whose answers rules decide."""
    return f"\\boxed{{{int(re.search(r'[0-9]+', body['messages'][-1]['content'])[0])}}}"


def test_a_judge_that_nothing_needed_is_on_record(serve, toy, run_eval, scores, alone):
    server, name = serve(judge), toy(rows=ROWS[:6])
    arguments = ("lm", "--base-url", serve(numbers).url, "--suite", name, "--data-dir", "data", "--out", "run")
    assert run_eval(*arguments, "--judge-base-url", server.url)[0] == 0
    assert scores(alone / "run")["judge"] == f"m ({server.url})" and len(server.requests) == 12  # known cases
    assert run_eval(*arguments, "--judge", "none")[0] == 0
    assert scores(alone / "run")["judge"] is None
    code, out, _ = run_eval("regrade", "run", "--judge-base-url", server.url, "--judge-model", "m")
    assert (
        code == 0 and f"judge: m ({server.url})" in out and len(server.requests) == 12
    )  # not even asked to be checked


def test_verdicts_count_again_after_a_call_without_a_judge(start, serve, scores, alone):
    """They were ignored: the judge had nothing left to say, and so was not recorded."""
    server = serve(judge)
    for arguments in (("--judge-base-url", server.url), ("--judge", "none"), ("--judge-base-url", server.url)):
        assert start(*arguments)[0] == 0
    assert scores(alone / "run")["benchmarks"]["toy"]["judged"] == 4
    assert len(server.requests) == 12 + 4 + 12  # only the known cases are asked again


def test_a_dry_run_counts_only_what_the_judge_has_not_said(start, serve, run_eval):
    server = serve(judge)
    assert start("--judge-base-url", server.url)[0] == 0
    named = ("--judge-base-url", server.url)
    assert run_eval("regrade", "run", "--dry-run", *named)[1].startswith("0 answers for the judge (4 are judged);")
    assert run_eval("regrade", "run", "--dry-run", *named, "--judge-model", "m")[1].startswith("0 answers")
    assert "0 answers for the judge (4 are judged)" in start(*named, "--dry-run")[1]
    other = ("--judge-base-url", "http://127.0.0.1:9/v1", "--judge-model", "other")
    assert run_eval("regrade", "run", "--dry-run", *other)[1].startswith("4 answers for the judge;")


def test_time_limit_and_headers_of_the_judge_are_settings(start, serve, make_reaction, scores, alone, monkeypatch):
    """A judge that takes longer than its limit decides nothing; the headers reach it, and no other server."""
    monkeypatch.setattr("rlfr_vlm.servers.endpoint.LONGEST_DELAY", 0.02)
    real = Endpoint.__init__

    def two_tries(self, *given, **settings):
        real(self, *given, **settings)
        self.max_tries = min(self.max_tries, 2)

    monkeypatch.setattr(Endpoint, "__init__", two_tries)

    def slow(body, n):
        answer = judge(body, n)
        return make_reaction(answer, delay=1.5) if "season" in body["messages"][1]["content"] else answer

    server = serve(slow)
    monkeypatch.setenv("JUDGE_TIME_LIMIT", "0.5")
    assert start("--judge-base-url", server.url)[0] == 2
    monkeypatch.setenv("JUDGE_TIME_LIMIT", "1")
    monkeypatch.setenv("JUDGE_HEADERS", '{"X-Team": "judges-of-toys"}')
    assert start("--judge-base-url", server.url)[0] == 3
    assert scores(alone / "run")["benchmarks"]["toy"]["undecided_reasons"] == {"judge failed: time-out": 4}
    assert {headers.get("x-team") for headers in server.headers} == {"judges-of-toys"}
    assert not any("x-team" in headers for headers in start.server.headers)
    stored = [path for path in (alone / "run").rglob("*") if path.is_file() and "judges-of-toys" in path.read_text()]
    assert stored == []
