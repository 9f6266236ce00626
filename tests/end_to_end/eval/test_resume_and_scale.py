"""Killed at any moment, nothing that was paid for is asked again; 100,000 answers stay linear and small."""

import json
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.eval.killing import complete_lines

RUN = "import sys; from rlfr_eval.cli import main; sys.exit(main(sys.argv[1:]))"


def test_kill_minus_nine_loses_nothing_and_asks_nothing_twice(serve, make_reaction, toy, scores, alone):
    chance, asked = random.Random(0), []

    def script(body, n):
        i = int(re.search(r"What is (\d+) plus", body["messages"][-1]["content"])[1])
        asked.append(f"toy/p{i}/0")
        return make_reaction(f"\\boxed{{{2 * i if i % 3 else -1}}}", delay=0.05)

    server, name = serve(script), toy(120)
    command = [sys.executable, "-c", RUN, "lm", "--base-url", server.url, "--suite", name, "--data-dir", "data",
               "--out", "run"]  # fmt: skip
    samples = alone / "run" / "samples.jsonl"
    for attempt in range(4):
        stored = {json.loads(line)["id"] for line in complete_lines(samples)}
        asked.clear()
        concurrency = str(chance.choice([1, 3, 8]))
        ours = subprocess.Popen([*command, "--concurrency", concurrency], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        goal = len(stored) + chance.randint(2, 20)
        while len(complete_lines(samples)) < goal and ours.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        ours.send_signal(signal.SIGKILL)
        ours.wait()
        assert not stored & set(asked), attempt
    with samples.open("ab") as stream:
        stream.write(b'{"id": "toy/p119/0", "raw": "torn')
    stored = {json.loads(line)["id"] for line in complete_lines(samples)}
    asked.clear()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "its last line was torn and was cut off" in done.stderr
    assert not stored & set(asked) and stored | set(asked) == {f"toy/p{i}/0" for i in range(120)}
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert (one["right"], one["wrong"], one["answered"]) == (80, 40, 120)


def test_ctrl_c_keeps_what_was_answered(serve, make_reaction, toy, alone):
    server, name = serve(lambda body, n: make_reaction("\\boxed{1}", delay=0.05)), toy(200)
    ours = subprocess.Popen(
        [sys.executable, "-c", RUN, "lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--out",
         "run", "--concurrency", "4"], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(complete_lines(alone / "run" / "samples.jsonl")) < 10 and ours.poll() is None:
        time.sleep(0.01)
    ours.send_signal(signal.SIGINT)
    _, err = ours.communicate(timeout=20)
    assert ours.returncode == 130 and "every answer so far is kept: run the same command again" in err
    assert "Traceback" not in err and len(complete_lines(alone / "run" / "samples.jsonl")) >= 10


SCALE = """
import json, sys
from pathlib import Path
from rlfr_eval.model.answering import sample_of, tasks
from rlfr_eval.benchmarks.text import load_benchmark, with_overrides
from rlfr_vlm.servers.endpoint import Reply
from rlfr_eval.benchmarks.text_problems import read_problems
from rlfr_eval.run.restore import configuration, describe
from rlfr_eval.schema import Selection
from rlfr_eval.score.scores import score_run
from rlfr_eval.run.folder import RunStore
from rlfr_eval.score.verdicts import grade_by_rules

benchmark, data_dir, folder = load_benchmark(Path(sys.argv[1])), Path("data"), Path(sys.argv[2])
data = read_problems(benchmark, data_dir)
selections = {"toy": Selection(benchmark, data.problems, len(data.problems))}
filler = "step by step. " * 100
calls = 0

def count(frame, event, argument):
    global calls
    calls += event in ("call", "c_call")

if sys.argv[3] == "count":
    sys.setprofile(count)
with RunStore(folder) as store:
    description = describe([benchmark], data_dir, None, "lm")
    store.begin({"name": "m"}, {"toy": configuration(benchmark, data, {})}, description)
    config = store.config_of("toy")
    for task in tasks(selections):
        i = int(task.problem.id[1:])
        reply = Reply(f"{filler}\\\\boxed{{{2 * i if i % 2 else -1}}}", "", "stop", 10, 400, 0.1, "m", 1)
        store.add_sample(sample_of(task, reply, config))
with RunStore(folder) as store:  # as a resumed run does it
    done = {sample.id for sample in store.answers()}
    assert not [task for task in tasks(selections) if task.id not in done]
    grade_by_rules(store, selections)
    scores = score_run(store, selections, {})
sys.setprofile(None)
one = scores["benchmarks"]["toy"]
# not ru_maxrss, which begins with the size of the process that forked this one
megabytes = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"calls": calls, "mb": megabytes, "accuracy": one["accuracy"], "answered": one["answered"]}))
"""
SAMPLING = "temperature = 1.0\nsamples = 20"


def measured(name, folder, mode):
    command = [sys.executable, "-c", SCALE, name, folder, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_function_calls_are_linear_in_the_number_of_samples(toy):
    small = measured(toy(50, name="toy", sampling=SAMPLING), "small", "count")
    large = measured(toy(250, name="toy", sampling=SAMPLING), "large", "count")
    assert (small["answered"], large["answered"]) == (1_000, 5_000)
    assert large["calls"] < 5 * small["calls"] * 1.2  # linear is 5 times; quadratic would be 25


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_hundred_thousand_samples_stay_under_500_mb(toy):
    large = measured(toy(5000, name="toy", sampling=SAMPLING), "large", "measure")
    assert large["answered"] == 100_000 and large["accuracy"] == pytest.approx(0.5)
    assert large["mb"] < 500
