"""The table of a paper: cells, means over runs, and what each format makes of them; numbers by hand."""

import csv
import io
import json
import math

import pytest

from rlfr_eval.report.paper_table import FORMATS, Row, as_csv, as_latex, as_text, grid


def score(accuracy, problems=10, planned=10, headline=True, coverage=1.0):
    return {"accuracy": accuracy, "ci95": [0.25, 0.75], "headline": headline, "coverage": coverage, "metric": "pass@1",
            "problems": problems, "problems_planned": planned}  # fmt: skip


def test_the_mean_over_seeds_has_students_interval():
    """0.4, 0.5, 0.6: standard error 0.1 / sqrt(3), t(2) = 4.3027; half of the width is 24.8 points."""
    row = Row("RLFR", [{"a": score(value)} for value in (0.4, 0.5, 0.6)])
    cell = row.cell("a")
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (cell.score, cell.low, cell.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert cell.text == "50.0 ± 24.8" and cell.runs == 3 and cell.interval == "over runs"
    assert grid([row]) == [["", "a"], ["RLFR (3 runs)", "50.0 ± 24.8"]]


def test_a_run_has_its_own_interval_and_a_mean_over_benchmarks():
    row = Row("rlvr", [{"a": score(0.5), "b": score(0.3)}])
    assert grid([row]) == [["", "a", "b", "mean"], ["rlvr", "50.0 [25.0, 75.0]", "30.0 [25.0, 75.0]", "40.0"]]


def test_no_number_stands_for_what_is_undecided_partial_or_not_measured():
    undecided = score(0.9, headline=False, coverage=0.5)
    rows = [
        Row("one", [{"a": undecided, "b": score(0.5, problems=4)}]),
        Row("two", [{"a": score(0.5)}]),
        Row("three", [{"a": score(0.5)}, {"a": undecided}]),
    ]
    assert grid(rows)[1:] == [
        ["one", "undecided", "50.0 [25.0, 75.0]*", "-"],
        ["two", "50.0 [25.0, 75.0]", "-", "-"],
        ["three (2 runs)", "undecided", "-", "-"],
    ]
    text = as_text(rows)
    assert "one, a: no score: 50.0 % undecided" in text and "one, b: * PARTIAL, 4 of 10 problems" in text
    assert "three, a: no score: no score in 1 of 2 runs: 50.0 % undecided" in text and "90.0" not in text
    assert "three, b: no score: not measured in 2 of 2 runs" in text
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [(line["row"], line["benchmark"], line["score"], line["undecided"]) for line in lines][:3] == [
        ("one", "a", "", "50.0000"), ("one", "b", "50.0000", "0.0000"), ("two", "a", "50.0000", "0.0000"),
    ]  # fmt: skip


def test_latex_escapes_names_and_keeps_remarks_as_comments():
    text = as_latex([Row("50%_a\\b & c", [{"math_500": score(0.5)}, {"math_500": score(0.5)}])])
    assert r"50\%\_a\textbackslash{}b \& c (2 runs) & 50.0 $\pm$ 0.0 \\" in text and r" & math\_500 \\" in text
    assert text.splitlines()[0].startswith("% percent;") and text.splitlines()[1] == r"\begin{tabular}{lc}"
    assert [line for line in text.splitlines() if line.startswith("\\")][-1] == r"\end{tabular}"


def test_the_command_makes_means_over_runs_and_refuses_other_problems(serve, toy, run_eval, alone):
    def answers(share):
        return lambda body, n: f"\\boxed{{{2 * number(body) if number(body) < share else -1}}}"

    def number(body):
        return int(body["messages"][-1]["content"].split()[2])

    name = toy(4)
    for folder, share in (("s1", 1), ("s2", 3), ("solo", 4)):
        arguments = ("lm", "--base-url", serve(answers(share)).url, "--suite", name, "--data-dir", "data")
        assert run_eval(*arguments, "--out", folder, "--seed", str(share))[0] == 0
    code, out, err = run_eval("table", "ours=s1,s2", "solo")
    assert code == 0 and "ours (2 runs)  50.0 ± 317.7" in out and "solo           100.0 [" in out and err == ""
    for form in FORMATS:
        code, out, _ = run_eval("table", "ours=s1,s2", "solo", "--format", form, "--out", f"t.{form}")
        assert code == 0 and "50.0" in (alone / f"t.{form}").read_text()
    assert "names a run twice" in run_eval("table", "x=s1,s1")[2]
    assert "'=s1' is no row" in run_eval("table", "=s1")[2]
    assert "nowhere is no run folder" in run_eval("table", "nowhere")[2] or run_eval("table", "nowhere")[0] == 2
    record = json.loads((alone / "s2" / "run.json").read_text())
    record["benchmarks"]["toy"]["data_sha256"] = "other"
    (alone / "s2" / "run.json").write_text(json.dumps(record))
    code, _, err = run_eval("table", "ours=s1,s2")
    assert code == 2 and "toy has other problems in s2 than in s1" in err
