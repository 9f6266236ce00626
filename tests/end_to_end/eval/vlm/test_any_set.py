"""Sets of VLMEvalKit that have no file here, judged in its words and read by its code: marks, yes or no, options."""

import base64
import csv
import functools
import json
import re

import pytest

from tests.end_to_end.eval.test_judged_runs import judge as text_judge
from tests.eval.vlm.sets import draw, text_of

PICTURE = base64.b64encode(draw(2)).decode()
OPTIONS = {"A": "cat", "B": "dog", "C": "cow", "D": "hen"}
SETS = {  # name -> the cells of every row, and the references
    "MMVet": ({"category": "rec"}, ["a cat", "a dog", "a cow", "a hen"]),
    "POPE": ({"category": "adversarial", "image_path": "{i}.png"}, ["Yes", "No", "Yes", "No"]),
    "MMMU_Pro_10c": ({**OPTIONS, "category": "Biology"}, ["B", "B", "C", "A"]),
    "MMVMBench": ({**OPTIONS, "category": "x", "match_type": "x"}, ["A", "A", "B", "B"]),
}


@pytest.fixture
def any_set(vlm, alone, running, serve, monkeypatch):
    """Runs a set whose policy says `answers[i]` to row i; a question carries `[i]`, so that it knows the row.

    A set is tried once for all tests: it takes seconds.
    """
    real = running.probe
    monkeypatch.setattr(running, "probe", lambda name, row: tried(real, name, row))

    def run(name, answers, script, *arguments, **more):
        cells, golds = SETS[name]
        with (alone / "lmu" / f"{name}.tsv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["index", "image", "question", "answer", *cells], delimiter="\t")
            writer.writeheader()
            for i, gold in enumerate(golds[: len(answers)]):
                row = {key: value.format(i=i) for key, value in cells.items()}
                writer.writerow({"index": i, "image": PICTURE, "question": f"What is it? [{i}]", "answer": gold} | row)
        vlm.server.script = lambda body, n: answers[int(re.search(r"\[(\d)\]", text_of(body))[1])]
        run.judge = more.pop("judge", None) or serve(judging(script), models=({"id": "j"},))
        return vlm("--judge-base-url", run.judge.url, *arguments, data=(name,), **more)

    return run


@functools.cache
def known_trials():
    return {}


def tried(probe, name, row):
    if name not in known_trials():
        known_trials()[name] = probe(name, row)
    return known_trials()[name]


def judging(script):
    """A judge that knows the common cases, and replies to VLMEvalKit's prompts as a script says: marker -> reply."""

    def reply(body, n):
        text = text_of(body)
        if "VERDICT" in text:
            return text_judge(body, n)
        said = script[re.findall(r"\((\w)\)", text)[-1]]
        return said(n) if callable(said) else said

    return reply


def counts(one):
    return one["right"], one["wrong"], one["undecided"]


def asked_of_vlmevalkit(server):
    return [text for body in server.requests if "VERDICT" not in (text := text_of(body))]


def test_marks_from_zero_to_one(any_set, scores, alone):
    """MM-Vet: full marks, 0.4 of them, none, and a reply that is no mark: (1 + 0.4 + 0) / 3, one undecided."""
    answers = [f"It may be so ({mark})" for mark in "abcd"]
    script = {"a": "1.0", "b": "0.4", "c": "0.0", "d": "It deserves most of the marks."}
    code, out, err = any_set("MMVet", answers, script, "--show-undecided")
    assert code == 0, err
    one = scores(alone / "run")["benchmarks"]["MMVet"]
    assert counts(one) == (1, 2, 1) and one["accuracy"] == pytest.approx(1.4 / 3) and one["metric"] == "mean score"
    assert (one["lower"], one["upper"]) == (pytest.approx(1.4 / 4), pytest.approx(2.4 / 4)) and not one["headline"]
    assert one["undecided_reasons"] == {"VLMEvalKit could not read the judge's reply": 1}
    assert one["metrics"]["full marks"]["accuracy"] == pytest.approx(1 / 3)
    assert "MMVet (mean score)" in out and "score of mean of rows" in out
    assert len(asked_of_vlmevalkit(any_set.judge)) == 4  # VLMEvalKit asks up to five times for a mark
    # the same command again asks nothing that has a verdict, and what is stored scores the same
    code, _, err = any_set("MMVet", answers, script, judge=any_set.judge)
    assert code == 0 and scores(alone / "run")["benchmarks"]["MMVet"]["accuracy"] == one["accuracy"], err
    assert len(asked_of_vlmevalkit(any_set.judge)) == 4  # the reply that is no mark comes from the cache


def test_yes_or_no(any_set, running, scores, alone, run_eval, monkeypatch):
    """POPE: by rules; by the judge, right and wrong; one that the judge cannot tell. Its own evaluation agrees."""
    answers = ["Yes.", "I see nothing (b)", "I see nothing (c)", "I see nothing (d)"]
    script = {"b": "No", "c": "No", "d": "It depends."}
    code, out, err = any_set("POPE", answers, script, "--cross-check")
    assert code == 0, err
    one = scores(alone / "run")["benchmarks"]["POPE"]
    assert counts(one) == (2, 1, 1) and one["judged"] == 2
    assert one["undecided_reasons"] == {"VLMEvalKit could not read the judge's reply": 1}
    assert "cannot be compared: not all is decided" in err
    code, _, err = any_set("POPE", answers[:3], script, "--cross-check", out="three")
    assert code == 0 and "own evaluation says 66.67, here it is 66.67" in err
    with monkeypatch.context() as patch:
        patch.setattr(running, "probe", None)  # what a run recorded is not tried again
        code, _, err = run_eval("regrade", "three", "--judge", "none", "--data-dir", "lmu")
    assert code == 0 and counts(scores(alone / "three")["benchmarks"]["POPE"]) == (1, 0, 2), err
    code, out, _ = run_eval("preview", "--data", "POPE", "--data-dir", "lmu", "-n", "1")
    assert code == 0 and "scored as rows: score of mean of rows, with a judge" in out


def test_options(any_set, scores, alone):
    """MMMU-Pro: its rules find B; the judge names B, the wrong C, and none, where VLMEvalKit would draw an option."""
    answers = ["The answer is B", "It barks (b)", "It barks (c)", "It barks (d)"]
    code, _, err = any_set("MMMU_Pro_10c", answers, {"b": "B", "c": "B", "d": "whichever you like"})
    one = scores(alone / "run")["benchmarks"]["MMMU_Pro_10c"]
    assert code == 0 and counts(one) == (2, 1, 1), err
    assert one["undecided_reasons"] == {"VLMEvalKit could not read the judge's reply": 1}


def test_what_vlmevalkit_passes_over_in_silence_is_undecided(any_set, scores, alone):
    """MMVMBench looks for YES in a reply and takes all else for wrong: [NO] is, reluctant talk or an error is not."""
    answers = [f"Perhaps ({mark})" for mark in "abcd"]
    script = {"a": "It fits. [YES]", "b": "The hat differs.\n[NO]", "c": "Well, who knows?", "d": "True"}
    code, _, err = any_set("MMVMBench", answers, script)
    one = scores(alone / "run")["benchmarks"]["MMVMBench"]
    assert code == 0 and counts(one) == (1, 1, 2), err
    assert one["undecided_reasons"] == {"judge's reply may have been passed over by VLMEvalKit": 2}


def test_a_judge_that_dies_leaves_answers_undecided_until_it_is_back(
    any_set, serve, scores, alone, make_reaction, impatient
):
    """A failed request is no reply: VLMEvalKit would take it for a wrong answer. The next call asks for it alone."""
    answers = [f"It may be so ({mark})" for mark in "abc"]
    script = {"a": "1.0", "b": lambda n: make_reaction(status=500), "c": lambda n: make_reaction("1.0", finish_reason="length")}  # fmt: skip  # noqa: E501
    code, _, err = any_set("MMVet", answers, script)
    one = scores(alone / "run")["benchmarks"]["MMVet"]
    assert code == 3 and counts(one) == (1, 0, 2), err
    assert one["undecided_reasons"] == {"judge failed: server error": 1, "judge cut off": 1}
    dead = any_set.judge
    dead.script = judging({"b": "1.0", "c": "0.0"})
    asked = len(asked_of_vlmevalkit(dead))
    code, _, err = any_set("MMVet", answers, {}, judge=dead)
    assert code == 0 and counts(scores(alone / "run")["benchmarks"]["MMVet"]) == (2, 1, 0), err
    assert len(asked_of_vlmevalkit(dead)) == asked + 2
    lines = [json.loads(line) for line in (alone / "run" / "verdicts.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in lines if line["by"] == "judge"}) == 3


def test_a_set_that_cannot_be_replayed_is_refused_by_name(vlm, alone, serve):
    """LLaVABench's evaluation does not run in this version of VLMEvalKit; nobody is asked."""
    header = "index\tquestion\tanswer\tcategory\timage\n"
    (alone / "lmu" / "LLaVABench.tsv").write_text(f"{header}0\tWhat?\ta cat\tconv\t{PICTURE}\n")
    code, _, err = vlm("--judge", "none", data=("LLaVABench",))
    assert code == 2 and "LLaVABench cannot be scored here: VLMEvalKit's evaluation of a row by itself fails" in err
    assert not vlm.server.requests
