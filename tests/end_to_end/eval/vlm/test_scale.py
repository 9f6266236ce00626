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
# seconds of the clock, and of CPU of our process and of VLMEvalKit's; the peak of our memory is not taken from
# ru_maxrss, which begins with the size of the process that forked
RUN = """
import json, resource, sys, time
from pathlib import Path
from rlfr_eval.cli import main
started = time.monotonic()
code = main(sys.argv[1:])
wall = time.monotonic() - started
ours, worker = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
megabytes = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"code": code, "wall": wall, "ours": ours.ru_utime + ours.ru_stime,
                  "worker": worker.ru_utime + worker.ru_stime, "mb": megabytes,
                  "worker_mb": worker.ru_maxrss / 1024}))
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
def test_four_thousand_judged_answers_within_a_minute_and_400_mb(serve, run_eval, scores, alone):
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
    print(used)  # two cloud cores, 2026-11-25: clock 51 s, CPU 27 s + 16 s, 87 MB
    one = scores(Path("run"))["benchmarks"]["LogicVista"]
    assert used["code"] == 0 and one["judged"] == one["answered"] == ROWS and one["accuracy"] == 0.5
    assert len(model.requests) == ROWS and len(judging.requests) == ROWS + 2  # two known cases
    # not the clock: the scripted servers share the two cores, and so may others
    assert used["ours"] + used["worker"] < 60 and used["mb"] < 400
