"""4,000 answers that all need a judge, with a model and a judge that answer at once: what is left is our own work."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.eval.vlm.fixtures import vlmeval_python
from tests.eval.vlm.sets import draw, judge_reply, text_of

ROWS = 4_000
# the peak of our memory is not taken from ru_maxrss, which begins with the size of the process that forked
RUN = """
import json, sys
from pathlib import Path
from rlfr_eval.cli import main
from rlfr_eval.vlmeval.worker_process import WorkerProcess
messages = []
send = WorkerProcess._send
WorkerProcess._send = lambda self, request: messages.append(request["do"]) or send(self, request)
code = main(sys.argv[1:])
megabytes = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"code": code, "messages": len(messages), "mb": megabytes}))
"""


def policy(body, n):
    """Right for even rows. As long as a chain of thought."""
    row = int(text_of(body).split("[row ")[1].split("]")[0])
    return f"{'Let us look at it step by step. ' * 60}So it must be option {'B' if row % 2 == 0 else 'C'} (row {row})"


def judge(body, n):
    text = text_of(body)
    return text.rsplit("it must be option ", 1)[1][0] if "it must be option " in text else judge_reply(text)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_four_thousand_judged_answers_in_one_request_each_and_400_mb(serve, run_eval, scores, alone):
    vlmeval_python()
    lmu = alone / "lmu"
    lmu.mkdir()
    pictures = [base64.b64encode(draw(number)).decode() for number in range(12)]
    lines = [f"{i}\tWhich? [row {i}]\tB\tinductive\t{pictures[i % 12]}\n" for i in range(ROWS)]
    (lmu / "LogicVista.tsv").write_text("index\tquestion\tanswer\tskill\timage\n" + "".join(lines))
    assert run_eval("fetch", "--vlm", "LogicVista", "--relock", "--data-dir", str(lmu))[0] == 0
    model, judging = serve(policy), serve(judge, models=({"id": "j"},))
    command = [sys.executable, "-c", RUN, "vlm", "--base-url", model.url, "--judge-base-url", judging.url, "--data",
               "LogicVista", "--data-dir", str(lmu), "--out", "run"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout.splitlines()[-1])
    print(used)
    one = scores(Path("run"))["benchmarks"]["LogicVista"]
    assert used["code"] == 0 and one["judged"] == one["answered"] == ROWS and one["accuracy"] == 0.5
    assert len(model.requests) == ROWS and len(judging.requests) == ROWS + 2  # two known cases
    assert used["messages"] < 3 * ROWS and used["mb"] < 400  # VLMEvalKit's process gets each answer a few times
