"""What was found by attacking the harness: each of these once gave a wrong number, or none, without a word."""

import json
import re

import pytest

from rlfr_eval.report.table import over_samples_lines


def number_in(body):
    return int(re.search(r"What is (\d+) plus", body["messages"][-1]["content"])[1])


def wrong(body, n):
    return "\\boxed{-1}"


def right(body, n):
    return f"\\boxed{{{2 * number_in(body)}}}"


@pytest.fixture
def measure(toy, run_eval, scores, alone):
    """Runs `rlfr-eval lm`; returns exit code, stderr, and the scores of each benchmark."""

    def run(url, *suites, out="run", more=(), data="data"):
        code, shown, err = run_eval(
            "lm", "--base-url", url, "--suite", *(suites or (toy(),)), "--data-dir", data, "--out", out, *more
        )
        run.shown = shown
        found = scores(alone / out)["benchmarks"] if (alone / out / "scores.json").exists() else {}
        return code, err, found

    return run


def test_a_verdict_belongs_to_its_answer(measure, serve, alone):
    answers = [wrong, right]
    server = serve(lambda body, n: answers[n > 4](body, n))
    measure(server.url)
    samples = alone / "run" / "samples.jsonl"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:2]))  # two answers are lost
    _, _, found = measure(server.url)
    assert (found["toy"]["right"], found["toy"]["wrong"]) == (2, 2)


def test_a_broken_verdict_line_blocks_nothing(measure, serve, alone):
    server = serve(right)
    measure(server.url)
    with (alone / "run" / "verdicts.jsonl").open("a") as stream:
        stream.write('{"id": "toy/p0/0", "by": "rules"}\n{"by": "judge"}\nnoise\n')
    code, _, found = measure(server.url)
    assert code == 0 and found["toy"]["right"] == 4 and "1 stored lines were damaged" in measure.shown


def test_changed_grading_settings_grade_anew(measure, serve, toy):
    server = serve(lambda body, n: f"\\boxed{{{2 * number_in(body) * 1.05 + 0.001}}}")
    assert measure(server.url)[2]["toy"]["right"] == 0
    assert measure(server.url, toy(more="tolerance = 0.1"))[2]["toy"]["right"] == 3  # 0 has no relative tolerance
    assert measure(server.url)[2]["toy"]["right"] == 0 and len(server.requests) == 4


def test_another_server_under_the_same_name_is_another_model(measure, serve, toy):
    assert measure(serve(wrong).url)[0] == 0
    code, err, _ = measure(serve(right).url)
    assert code == 2 and "model.url" in err
    weights = ({"id": "m", "root": "/weights/a", "max_model_len": 9000},)
    assert measure(serve(right, models=weights).url, out="b")[0] == 0
    assert measure(serve(right, models=weights).url, out="b")[0] == 0  # the same weights, served elsewhere


def test_letters_count_alike_for_grades_and_votes(measure, serve, toy):
    rows = [{"id": "p0", "problem": "Which?", "answer": "B"}]
    server = serve(lambda body, n: "So I choose B")
    _, _, found = measure(server.url, toy(rows=rows, sampling="temperature = 1.0\nsamples = 4"))
    assert (found["toy"]["accuracy"], found["toy"]["maj@4"], found["toy"]["no_answer_found"]) == (1.0, 1.0, 0.0)


def test_a_content_filter_is_no_wrong_answer(measure, serve, make_reaction):
    server = serve(lambda body, n: make_reaction("I cann", finish_reason="content_filter"))
    _, _, found = measure(server.url)
    assert found["toy"]["undecided_reasons"] == {"stopped by a content filter": 4} and found["toy"]["wrong"] == 0


def test_free_text_is_wrong_only_by_numbers_and_options(measure, serve, toy):
    rows = [
        {"id": "a", "problem": "Which gas?", "answer": "carbon dioxide"},
        {"id": "b", "problem": "How many?", "answer": "12"},
    ]
    server = serve(lambda body, n: "\\boxed{CO2}" if "gas" in str(body) else "\\boxed{13}")
    _, _, found = measure(server.url, toy(rows=rows))
    assert (found["toy"]["wrong"], found["toy"]["undecided"]) == (2, 0)
    _, _, found = measure(server.url, toy(rows=rows, more="free_text = true"))
    assert (found["toy"]["wrong"], found["toy"]["undecided_reasons"]) == (1, {"free text": 1})


def test_no_pass_at_k_stands_where_no_score_does(measure, serve, toy):
    server = serve(lambda body, n: right(body, n) if n % 2 else "because of the cold winter")
    name = toy(4, more='no_answer = "undecided"', sampling="temperature = 1.0\nsamples = 2")
    _, _, found = measure(server.url, name)
    assert not found["toy"]["headline"] and "pass@2" not in measure.shown and "maj@2" not in measure.shown
    lines = over_samples_lines({"benchmarks": found}, show_undecided=True)
    assert "problems left out)" in lines[0]


def test_two_benchmarks_in_one_folder_keep_their_own_judge_data_and_score(measure, serve, toy, run_eval, alone):
    from pathlib import Path

    server, a, b = serve(right), toy(4, name="a"), toy(2, name="b")
    measure(server.url, a)
    (alone / "elsewhere").mkdir()
    Path("data/b.jsonl").rename("elsewhere/b.jsonl")
    code, _, found = measure(server.url, b, data="elsewhere")
    assert code == 0 and {name: one["right"] for name, one in found.items()} == {"a": 4, "b": 2}
    assert "mean over 2 benchmarks: 100.0" in measure.shown
    assert run_eval("show", "run", "--id", "a/p1/0")[0] == run_eval("show", "run", "--id", "b/p1/0")[0] == 0
    run = json.loads((alone / "run" / "run.json").read_text())
    run["judges"] = {"a": "someone", "b": None}
    (alone / "run" / "run.json").write_text(json.dumps(run))
    assert run_eval("regrade", "run", "--judge", "none", "--dry-run")[0] == 0
    assert len(run["sessions"]) == 2 and run["sessions"][0]["command"][0] == "rlfr-eval"


def test_a_smaller_limit_later_breaks_nothing(measure, serve, toy, run_eval):
    server, judge, name = serve(right), serve(wrong), toy(4)  # a judge that replies, and that no check finds fit
    measure(server.url, name)
    code, _, found = measure(server.url, name, more=("--limit", "2", "--judge-base-url", judge.url, "--judge-force"))
    assert code == 0 and not found["toy"]["partial"] and found["toy"]["right"] == 4  # the result of all problems stays
    assert run_eval("show", "run", "--id", "p3")[0] == 0


def test_compare_says_what_is_not_comparable_apart_from_its_json(measure, serve, toy, run_eval):
    name = toy(6)
    measure(serve(right).url, name, out="a")
    measure(serve(wrong).url, name, out="b", more=("--limit", "3"))
    code, out, err = run_eval("compare", "a", "b", "--json")
    assert code == 0 and json.loads(out)["b"][0]["pairs"] == 3
    assert "toy is PARTIAL in b: the first 3 problems" in err
    measure(serve(lambda body, n: "\\boxed{-1}").url, name, out="c", more=("--prompt", "r1"))
    assert "toy was asked differently: prompt.name: 'chat' -> 'r1'" in run_eval("compare", "a", "c")[2]


def test_compare_pools_and_corrects(measure, serve, toy, run_eval):
    names = toy(6, name="x"), toy(4, name="y")
    measure(serve(wrong).url, *names, out="a")
    measure(serve(right).url, *names, out="b")
    found = {one["name"]: one for one in json.loads(run_eval("compare", "a", "b", "--json")[1])["b"]}
    # all problems flip: McNemar 2 / 2^n; Holm doubles the smaller p
    assert (found["x"]["p"], found["y"]["p"]) == (2 / 64, 2 / 16)
    assert (found["x"]["p_holm"], found["y"]["p_holm"]) == (4 / 64, 2 / 16)
    assert (found["all together"]["pairs"], found["all together"]["p"]) == (10, 2 / 1024)
    assert "p (Holm) allows for 2 comparisons" in run_eval("compare", "a", "b")[1]


def test_requests_that_are_all_refused_stop_early_and_say_why(measure, serve, make_reaction, toy):
    server = serve(lambda body, n: make_reaction("Unsupported parameter: seed", status=400))
    code, err, _ = measure(server.url, toy(200), more=("--concurrency", "4"))
    assert code == 3 and "Unsupported parameter: seed" in err and len(server.requests) < 20
    server = serve(right)
    assert measure(server.url, toy(), out="b", more=("--omit", "seed", "top_p"))[0] == 0
    assert not {"seed", "top_p"} & set(server.requests[0])


@pytest.mark.parametrize(("owner", "no_top_k"), [("vllm", -1), ("lmdeploy", 0)])
def test_servers_are_told_what_a_generation_config_would_change(measure, serve, toy, owner, no_top_k):
    server = serve(right, models=({"id": "m", "owned_by": owner, "max_model_len": 9000},))
    measure(server.url, toy())
    asked = server.requests[0]
    assert (asked["repetition_penalty"], asked["top_k"], asked["min_p"]) == (1.0, no_top_k, 0.0)
    measure(server.url, toy(), out="b", more=("--top-k", "5"))
    assert server.requests[-1]["top_k"] == 5
    server = serve(right)
    measure(server.url, toy(), out="c")
    assert "repetition_penalty" not in server.requests[0]  # others may refuse what they do not know


def test_a_server_without_a_list_of_models(measure, serve, toy):
    server = serve(right, models=())
    code, _, found = measure(server.url, toy(), more=("--model", "m"))
    assert code == 0 and found["toy"]["right"] == 4
    code, err, _ = measure(server.url, toy(), out="b")
    assert code == 2 and "Name one with --model" in err


@pytest.mark.parametrize("content", ["[1]", '{"format": 1}', "\xff"])
def test_broken_run_folders_are_one_message(run_eval, alone, content):
    (alone / "run").mkdir()
    (alone / "run" / "run.json").write_bytes(content.encode("latin-1"))
    for command in (["report", "run"], ["regrade", "run"], ["show", "run", "--id", "x"]):
        code, _, err = run_eval(*command)
        assert code == 2 and "Traceback" not in err and err.strip().count("\n") == 0


def test_places_that_cannot_be_written_are_one_message(measure, serve, toy, alone):
    (alone / "file").write_text("x")
    code, err, _ = measure(serve(right).url, toy(), out="file/run")
    assert code == 2 and "Cannot make the folder" in err
    (alone / "run" / "samples.jsonl").mkdir(parents=True)
    code, err, _ = measure(serve(right).url, toy())
    assert code == 2 and "Is a directory: run/samples.jsonl" in err
