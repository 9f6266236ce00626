"""`rlfr-eval vlm` on a circular set, whose questions are right only if all passes with shifted options are.

Four questions, ten rows, in MMBench's order: the unshifted pass of each, then the others. Rules leave one pass of 9
and one of 10 open; the judge takes both for right. By hand, over questions:

    7  right right         right
    8  right wrong right   wrong
    9  right right open    open, then right
    10 wrong open          wrong, whatever the open pass is
"""

import base64
import json
import re

import pytest

from rlfr_vlm.stats import wilson_interval
from tests.eval.importing.logs import write_tsv
from tests.eval.vlm.sets import draw, text_of

NAME = "MMBench_DEV_EN"
ANIMALS = ("cat", "dog", "cow")
OPEN = "It is the one that I mean (MMB-{index})"
PASSES = {7: ("right", "right"), 8: ("right", "wrong", "right"), 9: ("right", "right", "open"), 10: ("wrong", "open")}


def circular_rows():
    """The rows of the TSV file. The gold of pass 0 is B, and each pass moves the options, and the gold, by one."""
    table = []
    for question, passes in PASSES.items():
        for shift in range(len(passes)):
            options = [ANIMALS[(place - shift) % len(passes)] for place in range(len(passes))]
            index = question + shift * 1_000_000
            table.append({
                "index": index, "question": f"What is it? [MMB-{index}]", **dict.fromkeys("ABC", ""),
                **dict(zip("ABC", options, strict=False)), "answer": "ABC"[options.index("dog")],
                "category": "even" if question % 2 == 0 else "odd", "split": "dev",
                "image": base64.b64encode(draw(question)).decode() if shift == 0 else str(question),
            })  # fmt: skip
    return sorted(table, key=lambda row: row["index"])


ROWS = {row["index"]: row for row in circular_rows()}


def reply(body, number=0, passes=PASSES):
    """The policy's answer, by the marker in the question; a judge finds the marker of an open one in it."""
    index = int(re.search(r"\[MMB-(\d+)\]", text_of(body))[1])
    gold, kind = ROWS[index]["answer"], passes[index % 1_000_000][index // 1_000_000]
    wrong = next(letter for letter in "AB" if letter != gold)
    return {"right": gold, "wrong": wrong, "open": OPEN.format(index=index)}[kind]


def judge_reply(body, number=0):
    from tests.eval.vlm.sets import judge

    found = re.search(r"\(MMB-(\d+)\)", text_of(body))
    return ROWS[int(found[1])]["answer"] if found else judge(body)


@pytest.fixture
def circular(vlm, lmu, serve, run_eval):
    """Runs `rlfr-eval vlm` on the set; `circular.server` is the policy's, `circular.judge` a healthy judge's."""
    write_tsv(lmu / f"{NAME}.tsv", circular_rows())
    assert run_eval("fetch", "--vlm", NAME, "--relock", "--data-dir", str(lmu))[0] == 0

    def run(*arguments, out="run", server=None):
        return vlm(*arguments, data=(NAME,), out=out, server=server or run.server)

    run.server, run.judge = serve(reply), serve(judge_reply, models=({"id": "j"},))
    return run


def counts(score):
    return [score[key] for key in ("right", "wrong", "undecided")]


def test_without_a_judge_an_open_pass_leaves_its_question_open_unless_another_is_wrong(circular, scores, alone):
    code, out, err = circular("--judge", "none", "--show-undecided")
    score = scores(alone / "run")["benchmarks"][NAME]
    assert code == 0 and len(circular.server.requests) == 10, err
    assert counts(score) == [1, 2, 1] and (score["metric"], score["problems"]) == ("circular", 4)
    assert score["accuracy"] == pytest.approx(1 / 3) and (score["lower"], score["upper"]) == (0.25, 0.5)
    assert score["ci95"] == pytest.approx(wilson_interval(1, 3)) and not score["headline"]
    vanilla, everything = score["metrics"]["vanilla"], score["metrics"]["all passes"]
    assert (vanilla["accuracy"], vanilla["n"]) == (0.75, 4) and vanilla["ci95"] == pytest.approx(wilson_interval(3, 4))
    assert (everything["accuracy"], everything["lower"], everything["upper"], everything["n"]) == (0.75, 0.6, 0.8, 10)
    # about as wide as over four questions, and wider than over eight answers
    low, high = wilson_interval(6, 8)
    assert everything["ci95"][1] - everything["ci95"][0] > high - low
    assert score["groups"]["category"]["odd"]["n"] == score["groups"]["category"]["even"]["n"] == 2
    assert score["groups"]["category"]["even"]["accuracy"] == 0.0
    row = next(line for line in out.splitlines() if line.startswith(f"{NAME} (circular)"))
    assert row.split()[2:4] == ["4", "(33.3)"] and "vanilla 75.0" in out and "all passes 75.0" in out
    assert "25.0 % undecided (2 only a judge can tell)" in out


def test_with_a_judge_it_is_vlmevalkits_own_score(circular, scores, alone, run_eval):
    judged = ("--judge-base-url", circular.judge.url)
    code, _, err = circular(*judged, "--cross-check")
    score = scores(alone / "run")["benchmarks"][NAME]
    assert code == 0 and counts(score) == [2, 2, 0] and score["accuracy"] == 0.5 and score["headline"], err
    assert f"{NAME}: VLMEvalKit's own evaluation says 50.00, here it is 50.00" in err
    record = json.loads((alone / "run" / "run.json").read_text())
    assert record["cross_check"][NAME] == {"own": 50.0, "here": 50.0} and record["specs"][NAME]["questions"] == 4
    # a judge decided one question; question 10 was wrong before
    assert score["judged"] == 1 and score["rules_only"]["coverage"] == 0.75
    assert score["metrics"]["all passes"]["accuracy"] == pytest.approx(0.8)
    # the same again asks nobody
    assert circular(*judged)[0] == 0 and len(circular.server.requests) == 10
    shown = run_eval("show", "run", "--id", "9")[1]
    assert shown.count("--- raw answer") == 3 and f"question {NAME}/9/0: right (3 rows: right, right, right)" in shown
    assert run_eval("show", "run", "--id", f"{NAME}/1000008/0")[1].count("--- raw answer") == 1
    assert "2 rows: wrong, right" in run_eval("show", "run", "--id", "10")[1]
    assert "50.0" in run_eval("table", "run")[1]
    code, _, err = run_eval("report", "run")
    page = (alone / "run" / "report.html").read_text()
    assert code == 0 and "circular" in page and "right only if all of these passes" in page, err
    assert f"| {NAME} (circular) | 4 | 50.0 |" in (alone / "run" / "report.md").read_text()
    scored = scores(alone / "run")["benchmarks"]
    assert run_eval("regrade", "run", *judged)[0] == 0 and scores(alone / "run")["benchmarks"] == scored


def test_a_limit_takes_whole_questions_and_a_resumed_run_adds_the_others(circular, scores, alone):
    code, out, _ = circular("--judge", "none", "--limit", "2")
    score = scores(alone / "run")["benchmarks"][NAME]
    asked = {int(re.search(r"\[MMB-(\d+)\]", text_of(body))[1]) for body in circular.server.requests}
    assert code == 0 and asked == {7, 8, 1_000_007, 1_000_008, 2_000_008}
    assert counts(score) == [1, 1, 0] and f"{NAME} (circular) PARTIAL 2/4" in out
    assert circular("--judge", "none", "--limit", "1")[0] == 0 and len(circular.server.requests) == 5
    code, _, err = circular("--judge", "none", "--limit", "3", "--dry-run")
    assert code == 0, err
    assert circular("--judge", "none")[0] == 0 and len(circular.server.requests) == 10
    assert counts(scores(alone / "run")["benchmarks"][NAME]) == [1, 2, 1]


def test_an_unanswered_pass_leaves_its_question_undecided(circular, serve, scores, alone, impatient):
    """The server refuses one pass of question 7, all others of which are right, and one of 8, which is wrong."""

    def refusing(body, number=0):
        if re.search(r"MMB-(1000007|2000008)\]", text_of(body)):
            raise ConnectionError
        return reply(body)

    server = serve(refusing)
    code, out, err = circular("--judge", "none", "--limit", "2", server=server)
    score = scores(alone / "run")["benchmarks"][NAME]
    assert code == 3 and "Traceback" not in out + err
    assert counts(score) == [0, 1, 1] and score["missing"] == 2
    server.script = reply
    assert circular("--judge", "none", "--limit", "2", server=server)[0] == 0
    assert counts(scores(alone / "run")["benchmarks"][NAME]) == [1, 1, 0]


def test_runs_are_paired_by_question(circular, serve, run_eval, alone):
    """The other run errs in one pass of 7 and mends 8: two questions differ. Question 9 stays open in both."""
    other = {**PASSES, 7: ("right", "wrong"), 8: ("right", "right", "right"), 10: ("wrong", "wrong")}
    assert circular("--judge", "none")[0] == 0
    server = serve(lambda body, number: reply(body, number, other))
    assert circular("--judge", "none", out="other", server=server)[0] == 0
    code, out, err = run_eval("compare", "run", "other", "--json")
    (found,) = json.loads(out)["other"]
    assert code == 0 and (found["pairs"], found["won"], found["lost"]) == (3, ["8"], ["7"]), err
    assert found["value"] == 0.0 and found["left_out"] == 1 and found["p"] == 1.0
    (alone / "other" / "scores.json").unlink()
    code, _, err = run_eval("compare", "run", "other")
    assert code == 2 and "Run `rlfr-eval regrade other`" in err
    assert run_eval("regrade", "other")[0] == 0 and run_eval("compare", "run", "other")[0] == 0


def test_the_list_says_that_a_set_is_circular(run_eval):
    out = run_eval("list", "--vlm")[1]
    line = next(line for line in out.splitlines() if line.startswith(NAME))
    assert "  circular  " in line and "circular: a question is asked once for each shift of its options" in out
    assert "  rows  " in next(line for line in out.splitlines() if line.startswith("MathVista_MINI"))
