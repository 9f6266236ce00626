"""Jobs in processes of their own that do what `rlfr-eval` does, in a tenth of its time.

tests/end_to_end/eval/test_serve.py runs the real one.
"""

import signal
import sys
import threading

import pytest

from rlfr_eval.service import process
from rlfr_eval.service.process import JobProcess
from tests.eval.killing import lives
from tests.eval.service.service import ask, ended, service, serving, until

# Asks for 4 answers and has one more after each call. It reads what is to happen from the system prompt.
FAKE = r"""
import json, os, pathlib, sys, time
flags = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
out, what = pathlib.Path(flags["out"]), flags.get("system-prompt", "")
(out / "run.json").write_text(json.dumps({"planned": {"toy": 4}}))
with (out / "samples.jsonl").open("a") as stream:
    stream.write("{}\n")
print("working", os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), flush=True)
if what == "wait" and not pathlib.Path("go").exists():
    if os.fork() == 0:
        print("working", os.getpid(), flush=True)
    time.sleep(600)
if what == "fail":
    print("rlfr-eval: " + os.environ["JUDGE_API_KEY"] + " is refused", file=sys.stderr)
    sys.exit(2)
answered = (out / "samples.jsonl").read_text().count("\n")
if "model" in flags:
    answered = int(pathlib.Path(flags["model"], "model.safetensors").read_text())
missing = 4 - answered
toy = {"accuracy": 0.5, "ci95": [0.25, 0.75], "undecided": missing, "missing": missing, "answers_expected": 4}
if what == "broken":
    toy = {}
if what != "scoreless":
    (out / "scores.json").write_text(json.dumps({"benchmarks": {"toy": toy}}))
sys.exit(3 if what == "part" and answered < 4 else 0)
"""
KEY = "sk-very-secret-key-1234567890"


@pytest.fixture(autouse=True)
def fake(alone, monkeypatch):
    (alone / "fake.py").write_text(FAKE)
    monkeypatch.setattr(process, "COMMAND", (sys.executable, str(alone / "fake.py")))
    monkeypatch.setenv("JUDGE_API_KEY", KEY)


def job(what="", name="a", **more):
    asked = {"command": "lm", "suite": ["math500"], "prompt": "chat", "base_url": "http://127.0.0.1:1", "name": name}
    return {**asked, "system_prompt": what, **more}


def test_a_finished_job_has_scores_and_is_not_run_again(alone):
    with service(alone / "jobs") as send:
        assert send("/jobs", "POST", job())[0] == 202
        done = ended(send, "a")
        assert (done["state"], done["exit_code"]) == ("finished", 0) and done["ended"] >= done["started"] > ""
        assert done["progress"] == {"answered": 1, "wanted": 4} and done["metrics"]["benchmark/toy_undecided"] == 0.75
        assert done["summary"] == "toy 0.500 [0.250, 0.750], 3 of 4 undecided" and "log" not in done
        assert send("/jobs", "POST", job())[0] == 200 and send("/jobs/a", "DELETE")[1]["state"] == "finished"
        (alone / "jobs" / "a" / "scores.json").unlink()  # somebody has removed what it came to
        assert send("/jobs", "POST", job())[0] == 202 and ended(send, "a")["progress"]["answered"] == 2


def test_a_failed_job_says_why_without_the_key(alone):
    with service(alone / "jobs") as send:
        send("/jobs", "POST", job("fail"))
        failed = ended(send, "a")
        assert (failed["state"], failed["exit_code"], failed["reason"]) == ("failed", 2, "rlfr-eval ended with 2")
        assert failed["log"][-1] == "rlfr-eval: (secret) is refused" and "scores" not in failed
        assert send("/jobs", "POST", job("fail"))[0] == 202
        assert len(ended(send, "a")["log"]) == 2  # of the second call alone
        send("/jobs", "POST", job("scoreless", "b"))
        assert ended(send, "b")["reason"] == "rlfr-eval ended with 0 and left no scores"
        send("/jobs", "POST", job("broken", "c"))
        broken = ended(send, "c")
        assert (broken["state"], broken["reason"]) == ("failed", "its results cannot be read: KeyError('undecided')")
        send("/jobs", "POST", job(name="d"))
        assert ended(send, "d")["state"] == "finished"  # the worker lives
    with service(alone / "jobs", run=False) as send:
        assert [send(f"/jobs/{name}")[1]["state"] for name in "abcd"] == ["failed"] * 3 + ["finished"]


def test_an_incomplete_job_goes_on(alone):
    with service(alone / "jobs") as send:
        for call in range(1, 4):
            assert send("/jobs", "POST", job("part"))[0] == 202
            part = ended(send, "a")
            assert (part["state"], part["exit_code"], part["progress"]["answered"]) == ("incomplete", 3, call)
            assert (
                "the same request goes on" in part["reason"]
                and part["scores"]["benchmarks"]["toy"]["missing"] == 4 - call
            )
        assert send("/jobs", "POST", job("part"))[0] == 202 and ended(send, "a")["state"] == "finished"


def pids(folder):
    log = folder / "job.log"
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def test_a_cancelled_job_ends_with_what_it_started_and_goes_on_when_asked(alone):
    folder = alone / "jobs" / "a"
    with service(alone / "jobs") as send:
        send("/jobs", "POST", job("wait"))
        until(lambda: len(pids(folder)) == 2)
        running = send("/jobs/a")[1]
        assert (running["state"], running["progress"]) == ("running", {"answered": 1, "wanted": 4}) and running["log"]
        assert send("/jobs", "POST", job("wait"))[0] == 200 and all(map(lives, pids(folder)))
        stopped = send("/jobs/a", "DELETE")[1]
        assert (stopped["state"], stopped["exit_code"]) == ("cancelled", None) and stopped["ended"]
        assert not any(map(lives, pids(folder)))
        (alone / "go").touch()
        assert send("/jobs", "POST", job("wait"))[0] == 202
        assert ended(send, "a")["progress"] == {"answered": 2, "wanted": 4}


def test_jobs_run_in_turn_or_side_by_side_on_their_devices(alone):
    with service(alone / "jobs", parallel=2, devices=("4,5", "6")) as send:
        for name in "abc":
            send("/jobs", "POST", job("wait", name))
        until(lambda: all(len(pids(alone / "jobs" / name)) == 2 for name in "ab"))
        states = {one["name"]: one["state"] for one in send("/jobs")[1]["jobs"]}
        assert states == {"a": "running", "b": "running", "c": "queued"}
        logs = [(alone / "jobs" / name / "job.log").read_text().splitlines() for name in "ab"]
        assert sorted(line.split()[2] for log in logs for line in log if len(line.split()) == 3) == ["4,5", "6"]
        (alone / "go").touch()
        send("/jobs/a", "DELETE")
        assert ended(send, "c")["state"] == "finished"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_service_that_is_killed_or_stopped_leaves_its_jobs_to_the_next_one(alone, number):
    # tests may run where SIGINT is ignored, as in the background of a script
    heeded = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    ignored = "signal.signal(signal.SIGHUP, signal.SIG_IGN)"  # as nohup does
    fakes = f"from rlfr_eval.service import process; process.COMMAND = {process.COMMAND!r}"
    with serving(first=f"{heeded}; {ignored}; {fakes}") as (one, url):
        one.send_signal(signal.SIGHUP)
        for name in "ab":
            assert ask(f"{url}/jobs", "POST", job("wait", name))[0] == 202
        until(lambda: len(pids(alone / "jobs" / "a")) == 2)
        assert all(map(lives, pids(alone / "jobs" / "a")))
        one.send_signal(number)
        assert one.wait() == (-number if number == signal.SIGKILL else 0)
        assert number == signal.SIGKILL or not any(map(lives, pids(alone / "jobs" / "a")))
    left = pids(alone / "jobs" / "a")
    (alone / "go").touch()
    with service(alone / "jobs") as send:  # a killed one's processes may still be ending
        assert [ended(send, name)["state"] for name in "ab"] == ["finished", "finished"]
        assert [send(f"/jobs/{name}")[1]["progress"]["answered"] for name in "ab"] == [2, 1]
    assert not any(map(lives, left))


def test_a_job_waits_for_what_a_killed_service_left(alone, monkeypatch):
    """A process that holds the job's lock: the job begins when it has ended, is cancelled meanwhile, or gives up."""
    folder = alone / "jobs" / "a"
    folder.mkdir(parents=True)
    left = JobProcess([f"--out={folder}", "--system-prompt=wait"], folder, {}, "", threading.Event())
    until(lambda: len(pids(folder)) == 2)
    with service(alone / "jobs") as send:
        send("/jobs", "POST", job())
        until(lambda: send("/jobs/a")[1]["state"] == "running")
        assert send("/jobs/a", "DELETE")[1]["state"] == "cancelled"
        monkeypatch.setattr(process, "LOCK_WAIT", 0.2)
        send("/jobs", "POST", job())
        failed = ended(send, "a")
        assert failed["state"] == "failed" and "Processes of an earlier service still work in" in failed["reason"]
        monkeypatch.setattr(process, "LOCK_WAIT", 30.0)
        send("/jobs", "POST", job())
        until(lambda: send("/jobs/a")[1]["state"] == "running")
        left.stop()
        assert ended(send, "a")["state"] == "finished"
        left.wait()


def test_a_held_checkpoint_is_measured_after_the_trainer_has_written_another(alone):
    """The queue is not run until there are other weights at the same place."""
    model = alone / "run" / "checkpoint-7"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("1")
    asked = {key: value for key, value in job("").items() if key != "base_url"} | {"model": "run/checkpoint-7"}
    with service(alone / "jobs", run=False) as send:
        assert send("/jobs", "POST", {**asked, "name": "held", "hold_model": True})[0] == 202
        assert send("/jobs", "POST", {**asked, "name": "plain"})[0] == 202
        (model / "model.safetensors").unlink()
        (model / "model.safetensors").write_text("2")
        code, refused = send("/jobs", "POST", {**asked, "name": "plain"})
        assert code == 409 and "fingerprint of the model's folder: " in refused["error"]
    with service(alone / "jobs") as send:
        held, plain = ended(send, "held"), ended(send, "plain")
    assert (held["state"], held["scores"]["benchmarks"]["toy"]["missing"]) == ("finished", 3)
    assert (plain["state"], plain["exit_code"]) == ("failed", None)
    assert "holds another model than when the job was submitted" in plain["reason"]
    assert not (alone / "jobs" / "held" / "held_model").exists()


def test_a_state_that_cannot_be_written_does_not_end_the_service(alone, monkeypatch, capsys):
    with service(alone / "jobs") as send:
        send("/jobs", "POST", job("wait"))
        until(lambda: len(pids(alone / "jobs" / "a")) == 2)
        monkeypatch.setattr("rlfr_eval.service.state.write_json", full_disk)
        code, reply = send("/jobs", "POST", job(name="b"))
        assert (code, reply) == (500, {"error": "The service cannot do that: No space left on device."})
        assert send("/jobs/a", "DELETE")[1]["state"] == "cancelled"
        assert "a: its state cancelled cannot be written" in capsys.readouterr().out
        monkeypatch.undo()


def full_disk(path, value):
    raise OSError(28, "No space left on device")
