"""Run folders that were written before rows had types and verdicts by rules had an extraction."""

import json
import shutil
from pathlib import Path

import pytest

from rlfr_eval.run.folder import RunStore
from rlfr_eval.schema import Sample, read_verdict_line

OLD = Path(__file__).parent / "old_runs"


@pytest.fixture
def old_run(alone, monkeypatch):
    """Copies a folder; verdicts count as those of the grader and of the reader of replies that decided then."""

    def copy(kind):
        shutil.copytree(OLD / kind, alone / "run")
        shutil.copytree(OLD / kind / "data", alone / "data")
        grader = json.loads((alone / "run" / "scores.json").read_text())["grader"]
        monkeypatch.setattr("rlfr_eval.score.verdicts.grader_version", lambda: grader)
        monkeypatch.setattr("rlfr_eval.benchmarks.vlm.VLM_READER_VERSION", "2")
        return alone / "run"

    return copy


@pytest.mark.parametrize("path", sorted(OLD.glob("*/*.jsonl")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_lines_are_written_as_they_were_read(path):
    read = Sample.read if path.name == "samples.jsonl" else read_verdict_line
    for line in path.read_text().splitlines():
        assert json.dumps(read(json.loads(line)).write()) == line


def same(found, before):
    """Scores are equal but for the intervals that were bootstraps: of several samples, and of WeMath."""
    for name, score in before["benchmarks"].items():
        new = {key: found["benchmarks"][name][key] for key in score}
        if score["samples"] > 1 or "dimensions" in score:
            loose = [one["metrics"]["loose"] for one in (new, score) if "dimensions" in one]
            for scores in (new, score, new["rules_only"], score["rules_only"], *loose):
                scores.pop("ci95", None)
        assert new == score


def test_a_text_run_keeps_its_scores_and_its_judge(old_run, run_eval, scores):
    folder = old_run("text")
    before = scores(folder)
    assert before["benchmarks"]["toy"]["judged"] > 0
    assert run_eval("compare", "run", "run")[0] == run_eval("show", "run", "--id", "t0")[0] == 0
    for _ in range(2):
        with RunStore(folder) as store:
            judges = store.run["judges"]
            from rlfr_eval.kinds.text import TextKind
            from rlfr_eval.run.restore import restore
            from rlfr_eval.score.scores import score_run

            selections = restore(store, TextKind())
            same(score_run(store, selections, judges), before)
            TextKind().grade(store, selections)  # the second time, verdicts have an extraction


def test_a_better_extractor_reaches_judge_and_metrics(old_run, serve, run_eval, scores, monkeypatch, alone):
    """The stored extraction of every answer is replaced; verdicts on the old one do not count any more."""
    from dataclasses import replace

    from rlfr_vlm.grading import grade_many
    from tests.end_to_end.eval.test_judged_runs import judge

    folder = old_run("text")
    monkeypatch.setattr("rlfr_eval.score.verdicts.grader_version", lambda: "better")

    def better(items, tolerance=0.0):
        grades = grade_many(items, tolerance=tolerance)
        return [
            replace(grade, extraction=replace(grade.extraction, answer=f"better {grade.extracted}"))
            for grade in grades
        ]

    monkeypatch.setattr("rlfr_eval.score.verdicts.grade_many", better)
    assert scores(folder)["benchmarks"]["toy"]["no_answer_found"] > 0
    server = serve(judge, models=({"id": "j", "root": "judge"},))  # the judge of the folder
    code, _, err = run_eval("regrade", "run", "--judge-base-url", server.url)
    assert code == 0, err
    asked = [body["messages"][1]["content"] for body in server.requests]
    # both samples of a problem say the same
    assert len({text for text in asked if "better the" in text}) == 4
    assert scores(folder)["benchmarks"]["toy"]["no_answer_found"] == 0.0
    assert json.loads(run_eval("show", "run", "--id", "toy/t0/0", "--json")[1])["extracted"].startswith("better the")
    asked_before = len(server.requests)
    assert run_eval("regrade", "run", "--judge-base-url", server.url)[0] == 0
    # the known cases are put to a judge in every call; no answer is left
    assert not [body for body in server.requests[asked_before:] if "better the" in str(body)]


def test_a_multimodal_run_keeps_its_scores(old_run, run_eval, scores, running, monkeypatch):
    from rlfr_eval.kinds.vlm import VlmKind
    from rlfr_eval.run.restore import restore
    from rlfr_eval.score.scores import score_run

    folder = old_run("vlm")
    before = scores(folder)
    assert run_eval("compare", "run", "run")[0] == 0
    with RunStore(folder) as store:
        kind = VlmKind(running)
        selections = restore(store, kind)
        kind.grade(store, selections)
        same(score_run(store, selections, store.run["judges"]), before)
