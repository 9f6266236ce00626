"""`rlfr-eval serve` from end to end: jobs are whole calls of `rlfr-eval`, in processes of their own."""

import json
import signal
import subprocess

import pytest

from rlfr_eval.service.state import Job
from tests.end_to_end.eval.test_lm import adds
from tests.eval.killing import COMMAND, all_gone, commands_of_descendants, complete_lines
from tests.eval.service.service import ask, ended, service, serving, until
from tests.ports import free_port

KEY = "sk-very-secret-key-1234567890"
TOY = 8


@pytest.fixture
def job(toy):
    """A request for a small job; its data are in `data/`."""
    return {"command": "lm", "suite": [toy(TOY)], "data_dir": "data", "max_tries": 1}


def lasting(scores):
    """Scores without what depends on the clock."""
    times = ("latency_mean", "active_seconds", "answers_per_second")
    return {name: {k: v for k, v in one.items() if k not in times} for name, one in scores["benchmarks"].items()}


def test_a_job_has_the_scores_of_the_command(serve, run_eval, scores, job, alone, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    server = serve(adds)
    arguments = ("--base-url", server.url, "--suite", *job["suite"], "--data-dir", "data", "--temperature", "0.5")
    assert run_eval("lm", *arguments, "--out", "direct")[0] == 0
    asked = {**job, "name": "a", "base_url": server.url, "temperature": 0.5}
    with service(alone / "jobs", keys_for=(server.url,)) as send:
        assert send("/jobs", "POST", asked)[0] == 202
        done = ended(send, "a")
        assert (done["state"], done["exit_code"]) == ("finished", 0) and done["ended"] >= done["started"] > ""
        assert lasting(done["scores"]) == lasting(scores(alone / "direct"))
        assert done["scores"] == scores(alone / "jobs" / "a")
        assert done["metrics"]["benchmark/toy"] == 0.5 and done["progress"] == {"answered": TOY, "wanted": TOY}
        assert done["summary"].startswith("toy 0.500 [0.2")
        assert send("/jobs", "POST", asked)[0] == 200 and len(server.requests) == 2 * TOY
    with service(alone / "jobs") as send:  # another service knows it
        assert send("/jobs", "POST", asked)[1]["scores"] == done["scores"] and len(server.requests) == 2 * TOY
    run = json.loads((alone / "jobs" / "a" / "run.json").read_text())
    assert run["benchmarks"] == json.loads((alone / "direct" / "run.json").read_text())["benchmarks"]
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert not any(KEY.encode() in path.read_bytes() for path in (alone / "jobs").rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_job_without_its_server_fails_and_goes_on_when_it_is_back(serve, job, alone, monkeypatch):
    monkeypatch.setenv("RLFR_EVAL_API_KEY", KEY)
    port = free_port()
    asked = {**job, "name": "a", "base_url": f"http://127.0.0.1:{port}"}
    with service(alone / "jobs") as send:
        send("/jobs", "POST", asked)
        failed = ended(send, "a")
        assert (failed["state"], failed["exit_code"], failed["reason"]) == ("failed", 2, "rlfr-eval ended with 2")
        assert f"rlfr-eval: Cannot ask the model's server at http://127.0.0.1:{port}/v1" in failed["log"][-1]
        assert f"RLFR_EVAL_API_KEY not sent to http://127.0.0.1:{port}/v1" in failed["log"][0]
        assert "scores" not in failed and KEY not in json.dumps(failed)
        server = serve(adds, port=port)
        assert send("/jobs", "POST", asked)[0] == 202
        assert ended(send, "a")["state"] == "finished"
        assert KEY not in "".join(server.received) and server.keys  # no list says that this server may have it


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_next_service_goes_on_where_one_was_ended(serve, make_reaction, job, alone, number):
    held = [True]

    def script(body, n):
        return make_reaction(adds(body, n), delay=60.0 if held[0] and n > 3 else 0.0)

    server = serve(script)
    samples = alone / "jobs" / "a" / "samples.jsonl"
    with serving() as (process, url):
        for name in "ab":
            asked = {**job, "name": name, "base_url": server.url, "concurrency": 1}
            assert ask(f"{url}/jobs", "POST", asked)[0] == 202
        until(lambda: len(complete_lines(samples)) == 3 and len(server.requests) == 4)
        second = subprocess.run(
            [*COMMAND, "serve", "--out", "jobs", "--port", "0"], capture_output=True, text=True, check=False
        )
        assert second.returncode == 2 and "Another `rlfr-eval serve` works in jobs" in second.stderr
        descendants = list(commands_of_descendants(process.pid))
        process.send_signal(number)
        assert process.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert len(descendants) >= 2
        if number == signal.SIGTERM:
            assert all_gone(descendants, 0) and Job.read(alone / "jobs" / "a" / "job.json").state == "queued"
    held[0], asked_before = False, len(server.requests)
    with serving() as (_, url):  # a killed one's processes may still be ending

        def send(path):
            return ask(url + path)

        assert [ended(send, name)["state"] for name in "ab"] == ["finished", "finished"]
        assert all_gone(descendants, 0)
        assert len(server.requests) == asked_before + (TOY - 3) + TOY
        assert send("/jobs/a")[1]["scores"]["benchmarks"]["toy"]["accuracy"] == 0.5


@pytest.mark.parametrize(("arguments", "environment", "message"), [
    (("--host", "0.0.0.0"), {}, "--host 0.0.0.0 lets other machines ask, so RLFR_EVAL_TOKEN must be set"),
    ((), {"RLFR_EVAL_TOKEN": "short-one"}, "RLFR_EVAL_TOKEN must have at least 16 characters"),
    (("--parallel", "0"), {}, "--parallel is 0"),
    (("--parallel", "2", "--devices", "0"), {}, "--devices names 1 groups of GPUs for --parallel 2"),
    (("--keys-for", "ftp://x"), {}, "--keys-for is 'ftp://x', which is no address"),
    (("--judge-model", "j"), {}, "names a judge, but no server"),
])  # fmt: skip
def test_a_service_that_could_not_work_does_not_start(run_eval, alone, monkeypatch, arguments, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code, out, err = run_eval("serve", "--out", "jobs", "--port", "0", *arguments)
    assert code == 2 and message in err and "short-one" not in out + err and not (alone / "jobs").exists()


@pytest.mark.slow
def test_a_multimodal_job_has_the_scores_of_the_command(vlm, lmu, scores, alone):
    code, _, err = vlm("--judge", "none", data=("LogicVista",), out="direct")
    assert code == 0, err
    asked = {"command": "vlm", "name": "a", "data": "LogicVista", "base_url": vlm.server.url, "judge": "none"}
    with service(alone / "jobs", words=(f"--data-dir={lmu}",)) as send:
        assert send("/jobs", "POST", {**asked, "preset": "papers"})[0] == 400
        assert send("/jobs", "POST", asked)[0] == 202
        done = ended(send, "a", 300)
    assert done["state"] == "finished", done
    assert lasting(done["scores"]) == lasting(scores(alone / "direct"))
