"""What the service says of a job: progress counted in files that grow, and a log without secrets."""

import json

from rlfr_eval.service.options import ServiceOptions
from rlfr_eval.service.requests import JobRequest
from rlfr_eval.service.results import LAST_BYTES, AnswerCounts, details, log_end, progress
from rlfr_eval.service.state import Job
from rlfr_vlm.env_settings import load_settings

KEY = "sk-very-secret-key-1234567890"


def job(**fields):
    return Job(JobRequest("lm", "a"), "a", 1, **fields)


def test_answers_are_counted_on_from_the_last_count(tmp_path):
    path, counts = tmp_path / "samples.jsonl", AnswerCounts()
    assert counts.count(path) == 0
    path.write_bytes(b"1\n2\n3")
    assert counts.count(path) == 2  # the third is not whole
    with path.open("ab") as stream:
        stream.write(b"3\n4\n")
    assert counts.count(path) == 4
    path.write_bytes(b"1\n2\n")  # cut off
    assert counts.count(path) == 2


def test_progress_is_of_the_answers_that_are_wanted(tmp_path):
    counts = AnswerCounts()
    assert progress(tmp_path, counts) is None
    (tmp_path / "run.json").write_text(json.dumps({"planned": {"a": 3, "b": 4}}))
    assert progress(tmp_path, counts) == {"answered": 0, "wanted": 7}
    (tmp_path / "samples.jsonl").write_text("{}\n" * 9)
    assert progress(tmp_path, counts) == {"answered": 7, "wanted": 7}
    (tmp_path / "run.json").write_text(json.dumps({"planned": {"a": "x"}}))
    assert progress(tmp_path, counts) is None


def test_the_end_of_a_log_is_of_the_last_call_and_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    settings = load_settings()
    earlier = "an earlier call\n"
    lines = [f"refused {KEY}", "GET http://me:pw@host/v1?key=abc", "\x1b[31mred", "", "\xe9nd"]
    (tmp_path / "job.log").write_text(earlier + "\n".join(lines), encoding="utf-8")
    assert log_end(job(log_start=len(earlier)), tmp_path, settings) == [
        "refused (secret)", "GET http://(secret)@host/v1?(secret)", "\\x1b[31mred", "\xe9nd"]  # fmt: skip
    (tmp_path / "job.log").write_text("x" * 10 + KEY + "y" * (LAST_BYTES - 5) + "\nlast\n")
    assert log_end(job(), tmp_path, settings) == ["last"]  # the cut line could begin with half a key


def test_scores_are_told_of_jobs_that_have_ended_with_some(tmp_path):
    toy = {"accuracy": 0.5, "ci95": [0.25, 0.75], "undecided": 1, "missing": 0, "answers_expected": 4}
    (tmp_path / "scores.json").write_text(json.dumps({"benchmarks": {"toy": toy}}))
    settings = load_settings()
    told = details(job(state="finished"), tmp_path, settings, AnswerCounts())
    assert (
        told["scores"]["benchmarks"] == {"toy": toy}
        and told["summary"] == "toy 0.500 [0.250, 0.750], 1 of 4 undecided"
    )
    assert told["metrics"] == {
        "benchmark/toy": 0.5,
        "benchmark/toy_low": 0.25,
        "benchmark/toy_high": 0.75,
        "benchmark/toy_undecided": 0.25,
    }
    assert "log" not in told
    for state in ("queued", "running", "failed", "cancelled"):  # scores of an earlier call are not this one's
        assert "scores" not in details(job(state=state), tmp_path, settings, AnswerCounts())


def test_keys_go_to_named_servers_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    monkeypatch.setenv("RLFR_EVAL_TOKEN", "t" * 20)
    options = ServiceOptions(tmp_path, load_settings(), keys_for=("http://127.0.0.1:1/v1",))
    served, named, other = (JobRequest("lm", base_url=url) for url in ("", "http://localhost:1/v1", "http://h:1/v1"))
    assert [options.environment(one, "")["RLFR_EVAL_API_KEY"] for one in (served, named, other)] == ["", KEY, ""]
    assert "RLFR_EVAL_TOKEN" not in options.environment(named, "")
    assert options.environment(served, "4,5")["CUDA_VISIBLE_DEVICES"] == "4,5"
    assert [options.note(one) for one in (served, named)] == ["", ""]
    assert options.note(other) == "note: RLFR_EVAL_API_KEY not sent to http://h:1/v1, which is not among --keys-for"
