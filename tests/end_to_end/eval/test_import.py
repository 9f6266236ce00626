"""`rlfr-eval import` of logs about a small benchmark, with scores by hand, and what other commands make of the run."""

import json

import pytest

from tests.eval.importing.logs import DATE, lm_eval_line, lmms_eval_line, write_lines

UNDECIDED = r"\boxed{1,006}"


def question(i):
    return f"What is {i} plus {i}?"


# of seven problems: 0 and 1 right, 2 wrong, 3 has no answer in its text, 4 is empty, 5 undecided (gold 1.006, and the
# comma may be a point), 6 is not in the log; one line is of no problem, one is a second answer to problem 0
LINES = [
    lm_eval_line(0, question(0), [r"so \boxed{0}"], "0"),
    lm_eval_line(1, "What is 1\n  plus 1? ", ["The answer is 2."], "2"),
    lm_eval_line(2, question(2), [r"so \boxed{5} <script>alert(1)</script>"], "4"),
    lm_eval_line(3, question(3), ["I do not know."], "6"),
    lm_eval_line(4, question(4), [""], "8"),
    lm_eval_line(5, question(5), [UNDECIDED], "1.006"),
    lm_eval_line(99, question(99), [r"\boxed{198}"], "198"),
    lm_eval_line(0, question(0), [r"no, \boxed{1}"], "0"),
]


@pytest.fixture
def log(toy, alone):
    """A log of the seven problems, with the results beside it; `toy.toml` describes them."""
    golds = ["0", "2", "4", "6", "8", "1.006", "12"]
    toy(rows=[{"id": f"p{i}", "problem": question(i), "answer": gold} for i, gold in enumerate(golds)])
    results = {"model_name": "org/m", "lm_eval_version": "0.4.13<b>"}
    write_lines(alone / "logs" / f"results_{DATE}.json", [results])
    return write_lines(alone / "logs" / f"samples_sums_{DATE}.jsonl", LINES)


@pytest.fixture
def imported(run_eval):
    """Runs `rlfr-eval import` into `run`; returns exit code, stdout, stderr."""

    def run(*arguments, benchmark="toy.toml", out="run"):
        named = ("--benchmark", benchmark) if benchmark else ()
        words = ("import", *map(str, arguments), *named, "--data-dir", "data", "--judge", "none")
        return run_eval(*words, *(("--out", out) if out else ()))

    return run


def test_a_log_of_lm_eval_is_scored_by_hand(log, imported, scores, alone, run_eval):
    code, out, err = imported(log)
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 3  # a problem has no answer
    assert (one["right"], one["wrong"], one["undecided"], one["missing"]) == (2, 3, 2, 1)
    assert one["accuracy"] == 2 / 5 and one["lower"] == 2 / 7 and one["upper"] == 4 / 7 and not one["headline"]
    assert sum(one["undecided_reasons"].values()) == 2 and one["undecided_reasons"]["not answered"] == 1
    assert one["imported"]["listed"] == {
        "no such problem": 1,
        "second answer, the first counts": 1,
        "problem without an answer": 1,
    }
    assert one["truncated"] is None  # a log does not say how an answer ended
    assert "toy: 8 entries of lm-eval 0.4.13<b> for org/m, answers to 6 of 7 problems, 1 each" in err
    assert f"no such problem, {log.name}, line 7, What is 99 plus 99?" in err
    assert "1 answers are missing" in out and "run the same command again" not in out
    listed = [json.loads(line) for line in (alone / "run" / "import-toy.jsonl").read_text().splitlines()]
    assert [(line["remark"], line["problem"], line["place"]) for line in listed] == [
        ("no such problem", "", f"{log.name}, line 7"),
        ("second answer, the first counts", "p0", f"{log.name}, line 8"),
        ("problem without an answer", "p6", ""),
    ]
    record = json.loads((alone / "run" / "run.json").read_text())
    made = record["benchmarks"]["toy"]
    assert record["model"] == {"name": "org/m", "asked_by": "lm-eval"} and record["kind"] == "lm"
    assert made["prompt"]["name"] == "lm-eval" and made["sampling"] == {
        "do_sample": False,
        "temperature": 0.0,
        "max_gen_toks": 256,
    }
    assert len(made["imported"]["files"][0]["sha256"]) == 64
    # the other commands take it as a run
    assert "undecided" in run_eval("table", "run")[1]
    shown = run_eval("show", "run", "--id", "toy/p2/0")[1]
    assert "--- prompt (lm-eval 0.4.13<b>)\nProblem: What is 2 plus 2?\nAnswer:" in shown and "--- wrong" in shown
    assert "finish" not in shown
    assert run_eval("regrade", "run", "--judge", "none")[0] == 3
    assert scores(alone / "run")["benchmarks"]["toy"]["accuracy"] == 2 / 5
    assert run_eval("report", "run")[0] == 0
    page, report = ((alone / "run" / name).read_text() for name in ("report.html", "report.md"))
    assert "<script>alert" not in page + report and "0.4.13<b>" not in page + report
    assert str(log) in report and made["imported"]["files"][0]["sha256"] in report


def test_an_import_equals_a_run_with_the_same_answers(log, imported, scores, alone, serve, run_eval):
    """And the two are compared, with a note that another tool asked one of them."""
    said = {line["doc"]["problem"].split()[2]: line["resps"][0][0] for line in reversed(LINES)}
    server = serve(lambda body, n: said.get(body["messages"][-1]["content"].split()[2], r"\boxed{12}"))
    arguments = ("--suite", "toy.toml", "--data-dir", "data", "--judge", "none", "--out", "asked")
    assert run_eval("lm", "--base-url", server.url, *arguments)[0] == 0
    imported(log)
    verdicts = [
        {
            row["id"]: (row["verdict"], row["reason"])
            for row in map(json.loads, (alone / run / "verdicts.jsonl").open())
        }
        for run in ("asked", "run")
    ]
    assert verdicts[0].pop("toy/p6/0") == ("right", "") and verdicts[0] == verdicts[1]
    code, out, err = run_eval("compare", "asked", "run")
    assert code == 0 and "toy was asked by lm-eval 0.4.13<b> in run, with a prompt and sampling of its own" in err
    assert "asked differently" not in err and "+0.0" in out


def test_repeats_are_samples(toy, imported, scores, alone, run_eval):
    """avg@2 of (1, 1/2, 0, missing and right): 5 decided of 6 planned are 1, 0.5, and 0."""
    toy(n=3)
    answers = [[r"\boxed{0}", "The answer is 0"], [r"\boxed{2}", r"\boxed{3}"], [r"\boxed{5}"]]
    log = write_lines(alone / "a.jsonl", [lm_eval_line(i, question(i), some) for i, some in enumerate(answers)])
    code, _, _ = imported(log, "--model", "m")
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 3 and one["metric"] == "avg@2" and one["missing"] == 1
    assert (one["right"], one["wrong"], one["undecided"]) == (3, 2, 1) and one["accuracy"] == 0.5
    assert "toy/p1/1" in run_eval("show", "run", "--id", "p1")[1]


def test_a_log_of_lmms_eval_is_matched_by_its_prompts(toy, imported, scores, alone, run_eval):
    toy(n=2)
    lines = [
        lmms_eval_line(i, f"{question(i)}\nAnswer with a number.", rf"\boxed{{{answer}}}", str(2 * i))
        for i, answer in enumerate((0, 3))
    ]
    log = write_lines(alone / "20260806_102223_samples_sums.jsonl", lines)
    code, _, _ = imported(log, "--model", "m")
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert code == 0 and (one["right"], one["wrong"], one["missing"]) == (1, 1, 0) and one["headline"]
    assert run_eval("table", "run", "--format", "csv")[1].count("50.0") == 1


def test_the_same_again_adds_nothing_and_another_file_is_refused(log, imported, alone):
    imported(log)
    before = (alone / "run" / "samples.jsonl").read_bytes()
    assert imported(log)[0] == 3 and (alone / "run" / "samples.jsonl").read_bytes() == before
    write_lines(log, LINES[:3])
    code, _, err = imported(log)
    assert code == 2 and "holds answers of another configuration (toy.imported.files:" in err
    assert (alone / "run" / "samples.jsonl").read_bytes() == before


def test_several_files_and_benchmarks_share_a_folder(toy, imported, scores, alone):
    toy(n=4)
    parts = [
        write_lines(alone / f"samples_{i}_1.jsonl", [lm_eval_line(i, question(i), [rf"\boxed{{{2 * i}}}"])])
        for i in range(4)
    ]
    assert imported(*parts, parts[0], "--model", "m")[0] == 0
    toy(n=2, name="more")
    assert imported(*parts[:2], "--model", "m", benchmark="more.toml")[0] == 0
    found = scores(alone / "run")["benchmarks"]
    assert {name: (one["right"], one["wrong"], one["missing"]) for name, one in found.items()} == {
        "toy": (4, 0, 0),
        "more": (2, 0, 0),
    }


def test_a_limit_and_a_dry_run(log, imported, scores, alone):
    code, out, err = imported(log, "--dry-run")
    assert code == 0 and "answers to 6 of 7 problems" in err and not out and not (alone / "run").exists()
    assert imported(log, "--limit", "4")[0] == 0
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert one["partial"] and (one["right"], one["wrong"], one["missing"]) == (2, 2, 0)


def test_the_folder_is_named_after_model_and_tool(log, imported, alone):
    assert imported(log, out="")[0] == 3
    assert (alone / "outputs" / "eval" / "org--m--lm-eval" / "run.json").is_file()


STRANGE = LINES[6:7]  # is to no problem


@pytest.mark.parametrize(
    ("name", "lines", "benchmark", "words", "said"),
    [
        ("", LINES, "", (), "has answers to 'sums', which is no benchmark here. Name ours with --benchmark"),
        ("", LINES, "math50", (), "--benchmark 'math50' is no benchmark here. Did you mean 'math500'?"),
        ("", LINES, "math", (), "math is a suite of "),
        ("a.jsonl", LINES, "", ("--model", "m"), "its name does not say what it answers"),
        ("a.jsonl", LINES, "toy.toml", (), "does not say which model answered. Name it with --model."),
        ("", [], "toy.toml", (), "is empty; there are no answers"),
        ("", STRANGE, "toy.toml", (), "is to a problem of toy (1 x no such problem, 7 x problem without an answer)"),
        ("", STRANGE, "toy.toml", (), "is to 'What is 99 plus 99?', and the first problem is 'What is 0 plus 0?'"),
        ("", LINES, "toy.toml", ("--format", "vlmeval"), "it is no prediction file of VLMEvalKit"),
        ("", LINES, "toy.toml", ("--limit", "0"), "--limit is 0; it must be at least 1."),
    ],
)
def test_what_a_user_can_mend_is_one_message(log, imported, alone, name, lines, benchmark, words, said):
    path = write_lines(log.with_name(name or log.name), lines)
    code, out, err = imported(path, *words, benchmark=benchmark)
    assert code == 2 and said in err and "Traceback" not in err and not out and not (alone / "run").exists()


def test_files_of_two_models_or_two_tools_are_refused(toy, imported, alone):
    toy(n=1)
    for model in ("a", "b"):
        write_lines(alone / model / f"results_{DATE}.json", [{"model_name": model}])
        write_lines(alone / model / f"samples_x_{DATE}.jsonl", LINES[:1])
    logs = [alone / model / f"samples_x_{DATE}.jsonl" for model in ("a", "b")]
    assert "The files are of several models: a, b." in imported(*logs)[2]
    other = write_lines(alone / "c.jsonl", [lmms_eval_line(0, question(0), "0", "0")])
    assert "The files are of several tools: " in imported(logs[0], other)[2]
    assert not (alone / "run").exists()
