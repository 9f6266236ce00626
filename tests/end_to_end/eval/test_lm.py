"""`rlfr-eval lm` from end to end against scripted endpoints whose accuracy is known by construction."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from rlfr_eval.benchmarks.text import resolve
from rlfr_eval.benchmarks.text_problems import read_problems

KEY = "sk-very-secret-key-1234567890"
QUICK = ("--max-tries", "4")


def number_in(body):
    text = body["messages"][-1]["content"]
    return int(re.search(r"What is (\d+) plus", text)[1])


def adds(body, n):
    """Right for even numbers."""
    i = number_in(body)
    return f"so \\boxed{{{2 * i if i % 2 == 0 else -1}}}"


def files(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_the_math_suites_score_what_was_put_in(shared, serve, run_eval, scores, alone):
    """Of eight problems one gets no answer, one a wrong one, six the gold answer."""
    data = shared / "data" / "math_suites"
    answers, planned = {}, Counter()
    for benchmark in resolve(["math"]):
        for place, problem in enumerate(read_problems(benchmark, data).problems):
            kind = {0: "silent", 4: "wrong"}.get(place % 8, "right")
            planned[benchmark.name, kind] += 1
            answers[problem.question] = {
                "silent": "I do not know.",
                "wrong": "Therefore the answer is \\boxed{-987654321}.",
                "right": f"Therefore the answer is \\boxed{{{problem.golds[-1]}}}.",
            }[kind]

    def script(body, n):
        return answers[body["prompt"].split("<|im_start|>user\n")[1].split("<|im_end|>\n<|im_start|>assistant\n")[0]]

    server = serve(script)
    code, out, _ = run_eval("lm", "--base-url", server.url, "--suite", "math", "--data-dir", str(data), "--out", "run")
    assert code == 0 and len(server.requests) == 1590 and "PARTIAL" not in out and "mean over 6 benchmarks" in out
    found = scores(alone / "run")["benchmarks"]
    for name, one in found.items():
        right, silent = planned[name, "right"], planned[name, "silent"]
        assert (one["right"], one["undecided"], one["answered"]) == (right, 0, one["problems"]), name
        assert one["wrong"] == planned[name, "wrong"] + silent
        assert one["accuracy"] == right / one["problems"] and one["headline"]
        assert one["no_answer_found"] == pytest.approx(silent / one["problems"])
    assert sum(one["problems"] for one in found.values()) == 1590
    assert server.requests[0]["temperature"] == 0 and server.requests[0]["max_tokens"] == 8192


def test_run_folder_says_how_it_was_made_and_holds_no_key(serve, toy, run_eval, scores, alone, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    server = serve(adds)
    code, out, err = run_eval("lm", "--base-url", server.url, "--suite", toy(), "--data-dir", "data", "--out", "run")
    assert code == 0 and KEY not in out + err
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert not any(KEY.encode() in content for content in files("run").values())
    run = json.loads((alone / "run" / "run.json").read_text())
    assert run["model"] == {"name": "m", "url": server.url} and run["context"] == 9000
    assert run["benchmarks"]["toy"]["prompt"] == {"name": "chat", "version": 1, "hash": "0839a52836ba"}
    assert set(run["sessions"][0]["versions"]) >= {"rlfr-vlm", "python", "openai", "math-verify"}
    sample = json.loads((alone / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert (sample["id"], sample["raw"], sample["extracted"]) == ("toy/p0/0", "so \\boxed{0}", "0")
    assert (sample["finish_reason"], sample["completion_tokens"], sample["seed"]) == ("stop", 7, 0)
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert (one["right"], one["wrong"], one["accuracy"]) == (2, 2, 0.5)
    assert one["ci95"] == pytest.approx([0.15, 0.85], abs=0.005)  # Wilson, 2 of 4
    assert "50.0" in (alone / "run" / "report.md").read_text()


def test_every_fault_on_the_way_and_nothing_is_lost(serve, make_reaction, toy, run_eval, scores, alone):
    bad = [
        {"status": 429, "headers": {"retry-after": "0.2"}}, {"status": 500}, {"drop": True},
        {"text": "", "tokens": None},
        {"raw": b"<html>", "headers": {"content-type": "text/html"}}, {"text": "\\boxed{1}", "model": "other"},
        {"text": "\\boxed{1}", "cut": 5}, {"raw": b'{"choices": [{"mess'}, {"delay": 2.0},
        {"text": "x" * 90, "drip": 0.05},
    ]  # fmt: skip
    seen = Counter()

    def script(body, n):
        i = number_in(body)
        seen[i] += 1
        return make_reaction(**bad[i]) if i < len(bad) and seen[i] == 1 else adds(body, n)

    server = serve(script)
    code, out, _ = run_eval(
        "lm", "--base-url", server.url, "--suite", toy(20), "--data-dir", "data", "--out", "run", "--time-limit", "1",
    )  # fmt: skip
    found = scores(alone / "run")
    one = found["benchmarks"]["toy"]
    assert code == 0 and (one["right"], one["wrong"], one["missing"]) == (10, 10, 0)
    assert found["faults"] == {"connection": 2, "not JSON": 2, "time-out": 2, "rate limit": 1, "server error": 1,
                               "empty": 1, "wrong model": 1}  # fmt: skip
    assert "Requests that failed on the way: 2 " in out


def test_a_server_that_stays_broken_leaves_the_rest_for_another_call(
    serve, make_reaction, toy, run_eval, scores, alone
):
    broken = [True]

    def script(body, n):
        return make_reaction(status=500) if broken[0] and number_in(body) >= 4 else adds(body, n)

    server, name = serve(script), toy(40)
    arguments = ("lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run",
                 "--max-tries", "1", "--concurrency", "2")  # fmt: skip
    code, out, err = run_eval(*arguments)
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 3 and (one["right"], one["wrong"], one["missing"], one["headline"]) == (2, 2, 36, False)
    assert (one["lower"], one["upper"]) == (2 / 40, 38 / 40)
    assert re.search("(8|9) requests in a row failed after all tries", err) and "undecided" in out
    assert len(server.requests) < 20  # it gave up, and did not ask the other problems in vain
    asked = len(server.requests)
    broken[0] = False
    assert run_eval(*arguments)[0] == 0
    assert len(server.requests) == asked + 36
    assert scores(alone / "run")["benchmarks"]["toy"]["accuracy"] == 0.5


def test_settings_that_would_mix_are_refused_and_more_samples_extend(serve, toy, run_eval, scores, alone):
    server, name = serve(adds), toy(sampling="temperature = 1.0")
    arguments = ("lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run")
    assert run_eval(*arguments)[0] == 0
    code, _, err = run_eval(*arguments, "--temperature", "0.5")
    assert code == 2 and "toy.sampling.temperature: 1.0 -> 0.5" in err and "take another --out" in err
    assert run_eval(*arguments, "--prompt", "r1")[0] == 2
    assert run_eval(*arguments, "--extra-body", '{"x": 1}')[0] == 2
    assert len(server.requests) == 4
    code, out, _ = run_eval(*arguments, "--samples", "3")
    assert code == 0 and len(server.requests) == 12 and "avg@3" in out and "maj@3 50.0" in out
    assert sorted(body["seed"] for body in server.requests) == [0] * 4 + [1] * 4 + [2] * 4
    assert scores(alone / "run")["benchmarks"]["toy"]["metric"] == "avg@3"


def test_a_limit_marks_results_as_partial_everywhere(serve, toy, run_eval, alone):
    server, name = serve(adds), toy(8)
    arguments = ("lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run")
    code, out, _ = run_eval(*arguments, "--limit", "4")
    assert code == 0 and "toy PARTIAL 4/8" in out
    assert "PARTIAL 4/8" in (alone / "run" / "report.md").read_text()
    assert "PARTIAL 4/8" in run_eval("report", "run")[1]
    assert json.loads(run_eval("report", "run", "--json")[1])["benchmarks"]["toy"]["partial"] is True
    code, out, _ = run_eval(*arguments)  # the rest
    assert code == 0 and "PARTIAL" not in out and len(server.requests) == 8


def test_a_later_smaller_limit_leaves_a_complete_result_complete(serve, toy, run_eval, scores, alone):
    """It turned 8 of 8 problems into PARTIAL 3/8; fewer samples likewise."""
    server, name = serve(adds), toy(8, sampling="temperature = 1.0")
    arguments = ("lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out", "run")
    assert run_eval(*arguments, "--samples", "2")[0] == 0
    code, out, err = run_eval(*arguments, "--limit", "3")
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 0 and len(server.requests) == 16 and "PARTIAL" not in out
    assert (one["problems"], one["samples"], one["partial"], one["answered"]) == (8, 2, False, 16)
    assert "an earlier call planned 16 answers in run; this one asks for 3 of them, and the score is about all" in err
    code, out, err = run_eval(*arguments, "--samples", "2", "--limit", "8")
    assert code == 0 and "earlier call" not in err


def test_a_server_that_moved_is_named_on_resume(serve, toy, run_eval, scores, alone):
    server, moved, name = serve(adds), serve(adds), toy(4)
    arguments = ("lm", "--suite", name, "--data-dir", "data", "--out", "run")
    assert run_eval(*arguments, "--base-url", server.url, "--limit", "2")[0] == 0
    code, _, err = run_eval(*arguments, "--base-url", moved.url)
    assert code == 2 and f"or add --moved-from {server.url} if it is the same server" in err
    assert run_eval(*arguments, "--base-url", moved.url, "--moved-from", moved.url)[0] == 2
    assert run_eval(*arguments, "--base-url", moved.url, "--moved-from", server.url)[0] == 0
    assert len(moved.requests) == 2 and scores(alone / "run")["benchmarks"]["toy"]["right"] == 2
    code, _, err = run_eval(*arguments, "--model", ".", "--moved-from", server.url)
    assert code == 2 and "config.json" in err
    assert len(json.loads((alone / "run" / "run.json").read_text())["sessions"]) == 2


def test_a_file_of_ones_own_needs_its_path_and_columns(serve, run_eval, scores, alone):
    """JSONL by itself, and a CSV whose columns a TOML file names; both are found from another folder, too."""
    (alone / "sums.jsonl").write_text(
        '{"problem": "What is 1 plus 1?", "answer": 2}\n{"problem": "What is 2 plus 2?", "answer": "4"}\n'
    )
    (alone / "table.csv").write_text("q,truth\nWhat is 1 plus 1?,2\nWhat is 4 plus 4?,8\n")
    (alone / "my sums.toml").write_text('path = "table.csv"\n[source]\nproblem = "q"\nanswer = "truth"\n')
    server = serve(adds)
    arguments = ("lm", "--base-url", server.url, "--prompt", "chat", "--max-tokens", "64", "--out", "run")
    code, out, _ = run_eval(*arguments, "--suite", "sums.jsonl", "my sums.toml")
    found = scores(alone / "run")["benchmarks"]
    assert code == 0 and list(found) == ["sums", "my-sums"] and "sums" in out
    assert [(one["answered"], one["right"]) for one in found.values()] == [(2, 1), (2, 1)]
    record = json.loads((alone / "run" / "run.json").read_text())
    assert record["specs"]["my-sums"]["path"] == str(alone / "table.csv")
    assert run_eval("show", "run", "--id", "my-sums-1")[0] == 0
    moved = alone / "elsewhere"
    moved.mkdir()
    for name in ("table.csv", "sums.jsonl"):
        (alone / name).rename(moved / name)
    assert run_eval("regrade", "run")[0] == 2
    assert run_eval("regrade", "run", "--data-dir", "elsewhere")[0] == 0
    code, _, err = run_eval(*arguments, "--suite", "elsewhere/table.csv")
    assert code == 2 and "Row 1 of" in err and "has no column 'problem'" in err and "It has q, truth" in err
    (alone / "none.toml").write_text('path = "absent.jsonl"\n')
    assert "absent.jsonl is no file" in run_eval(*arguments, "--suite", "none.toml")[2]
    assert "There is nothing to fetch: table reads" in run_eval("fetch", "elsewhere/table.csv")[2]


def test_what_does_not_fit_the_context_is_an_error_before_anything_is_asked(serve, toy, run_eval):
    server, name = serve(adds, models=({"id": "m", "max_model_len": 120},)), toy()
    arguments = ("lm", "--base-url", server.url, "--suite", name, "--data-dir", "data")
    code, _, err = run_eval(*arguments, "--max-tokens", "120")
    assert code == 2 and "toy asks for 120 tokens, but the model's context is 120" in err
    code, _, err = run_eval(*arguments)  # the scripted /tokenize counts 100; 100 + 64 > 120
    assert code == 2 and "has 100 tokens, which leaves 20" in err and "Set --max-tokens 20 or less" in err
    assert server.requests == []


def test_a_prompt_that_turns_out_too_long_stops_the_run(serve, make_reaction, toy, run_eval, alone):
    def script(body, n):
        too_long = make_reaction("maximum context length is 70 tokens", status=400)
        return too_long if number_in(body) == 3 else adds(body, n)

    server = serve(script, models=({"id": "m"},))  # as many APIs, it does not say its context
    code, _, err = run_eval("lm", "--base-url", server.url, "--suite", toy(), "--data-dir", "data", "--out", "run",
                            "--concurrency", "1")  # fmt: skip
    assert code == 2 and "the server does not say its context length" in err
    assert "toy/p3/0: prompt and answer do not fit the model's context" in err and "Lower --max-tokens" in err
    assert len((alone / "run" / "samples.jsonl").read_text().splitlines()) == 3  # what was answered is kept


def test_dry_run_asks_nobody(serve, toy, run_eval, alone, monkeypatch):
    server = serve(adds)
    monkeypatch.setenv("JUDGE_BASE_URL", server.url)
    monkeypatch.setenv("JUDGE_PRICE_OUTPUT", "10")
    arguments = ("lm", "--base-url", server.url, "--suite", toy(), "--data-dir", "data", "--out", "run", "--dry-run")
    code, out, _ = run_eval(*arguments)
    assert code == 0 and server.requests == [] and not (alone / "run").exists()
    assert "toy: 4 problems x 1, prompt chat, temperature 0, 64 tokens, judge: undecided" in out
    assert "judge named by JUDGE_BASE_URL (environment): 4 answers if rules decided none" in out
    assert "0.04 USD" in out  # 4 replies of at most 1,024 tokens at 10 dollars a million


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say what to measure: --model PATH_OR_HUB_ID, or --base-url"),
        (("--model", "./nowhere"), "--model ./nowhere is no folder"),
        (("--base-url", "http://127.0.0.1:9", "--limit", "0"), "--limit is 0; it must be at least 1"),
        (
            ("--base-url", "http://127.0.0.1:9", "--extra-body", "[1]"),
            "--extra-body is '[1]'; it must be a JSON object",
        ),
        (("--base-url", "http://127.0.0.1:9"), "Cannot ask the model's server at http://127.0.0.1:9/v1"),
        (("--base-url", "http://127.0.0.1:9", "--promt", "x"), "nrecognized arguments: --promt"),
        (("--base-url", "http://127.0.0.1:9", "--samples", "2"), "2 samples at temperature 0"),
        (("--base-url", "http://127.0.0.1:9", "--temperature", "nan"), "temperature nan"),
        (("--base-url", "http://127.0.0.1:9", "--extra-body", '{"a": NaN}'), "it must be a JSON"),
        (("--base-url", "http://127.0.0.1:9", "--extra-body", '{"temperature": 1}'), "--extra-body holds temperature"),
        (("--base-url", "http://127.0.0.1:9", "--time-limit", "0"), "--time-limit is 0"),
        (("--base-url", "http://[::1"), "is no address of a server"),
        (("--base-url", "http://h/v1?key=sk-1"), "may hold a key and is not sent"),
        (("--model", "org/m", "--server-args", "'x"), "Cannot read the command"),
        (("--model", "org/m", "--server-args", "--api-key x"), "A key has no place on a command line"),
        (("--base-url", "http://127.0.0.1:9", "--prompt", "qwen-box", "--system-prompt", "x"), "is a raw template"),
    ],
)
def test_mistakes_get_one_message(toy, run_eval, arguments, message):
    code, _, err = run_eval("lm", "--suite", toy(), "--data-dir", "data", *arguments)
    assert code == 2 and message in err and "Traceback" not in err and err.strip().count("\n") == 0


@pytest.mark.slow
def test_two_thousand_answers_take_one_request_each_and_64_connections(serve, toy, run_eval, scores, alone):
    """The endpoint's requests take most of the time; benchmarks/speed/eval_overhead.py measures the seconds."""
    server, name = serve(adds), toy(2000)
    asked = ("--suite", name, "--data-dir", "data", "--out", "run", "--concurrency", "64")
    code, _, _ = run_eval("lm", "--base-url", server.url, *asked)
    assert code == 0 and scores(alone / "run")["benchmarks"]["toy"]["accuracy"] == 0.5
    assert len(server.requests) == 2000 and server.connections <= 64 + 2  # two for the list of models


def test_show_an_answer_whole_and_harmless(serve, toy, run_eval):
    server = serve(lambda body, n: "\x1b[31mred \\boxed{0}")
    assert run_eval("lm", "--base-url", server.url, "--suite", toy(), "--data-dir", "data", "--out", "run")[0] == 0
    code, out, _ = run_eval("show", "run", "--id", "p0")
    assert code == 0 and "\\x1b[31mred" in out and "\x1b" not in out
    assert all(text in out for text in ("=== toy/p0/0", "What is 0 plus 0?", "--- gold\n0", "--- right"))
    shown = json.loads(run_eval("show", "run", "--id", "toy/p1/0", "--json")[1])
    assert shown["golds"] == ["2"] and shown["verdicts"][0]["verdict"] == "wrong"
    code, _, err = run_eval("show", "run", "--id", "p9")
    assert code == 2 and "No answer has the id 'p9'" in err


def test_compare_two_runs(serve, toy, run_eval):
    def all_but_two(body, n):
        i = number_in(body)
        return f"\\boxed{{{2 * i if i not in (0, 3) else -1}}}"

    name = toy(10)
    for folder, script in (("a", adds), ("b", all_but_two)):
        assert (
            run_eval("lm", "--base-url", serve(script).url, "--suite", name, "--data-dir", "data", "--out", folder)[0]
            == 0
        )
    code, out, _ = run_eval("compare", "a", "b")
    # b wins 1, 5, 7, 9 and loses 0: McNemar 2 (1 + 5) / 32
    assert code == 0 and "+30.0" in out and "0.375" in out and "+4 -1" in out
    assert "toy, better: p1, p5, p7, p9" in out and "toy, worse: p0" in out
    found = json.loads(run_eval("compare", "a", "b", "--json")[1])["b"][0]
    assert (found["pairs"], found["p"], found["p_holm"], found["test"]) == (10, 0.375, 0.375, "exact McNemar")
    code, _, err = run_eval("compare", "a")
    assert code == 2 and "two run folders" in err
    toy(10, rows=[{"id": f"p{i}", "problem": f"What is {i} plus 0?", "answer": str(i)} for i in range(10)])
    assert run_eval("lm", "--base-url", serve(adds).url, "--suite", name, "--data-dir", "data", "--out", "c")[0] == 0
    assert "none can be paired" in run_eval("compare", "a", "c")[2]


def test_answers_without_a_final_answer_are_named(serve, toy, run_eval):
    """78 % of a small model's answers had none, and only a column of the table said so."""
    server, silent, name = serve(adds), serve(lambda body, n: "Let us see."), toy(4)
    arguments = ("lm", "--suite", name, "--data-dir", "data")
    assert "no final answer was found" not in run_eval(*arguments, "--base-url", server.url, "--out", "run")[1]
    out = run_eval(*arguments, "--base-url", silent.url, "--out", "other")[1]
    assert "toy: in 100.0 % of the answers no final answer was found" in out
