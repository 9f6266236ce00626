"""A model and a judge of our own, one after the other: when each is started and stopped, by their own diary."""

import sys
from pathlib import Path

import pytest

from tests.end_to_end.eval.vlm.test_faults import accuracies
from tests.end_to_end.eval.vlm.test_runs import BY_HAND
from tests.eval.vlm.sets import SETS

ROOT = Path(__file__).resolve().parents[4]

# A server that plays one of the two parts, and notes when it starts, is first asked to answer, and is told to end.
STAND_IN = """
import signal, sys, threading
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.eval.conftest import ScriptedEndpoint
from tests.eval.vlm import sets

part, port, name = sys.argv[1:]
end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())

def note(what):
    with Path("diary").open("a") as diary:
        diary.write(f"{{part}} {{what}}\\n")

def script(body, n):
    if n == 1:
        note("asked")
    if part == "junk":
        return "I cannot help."
    return getattr(sets, part)(body)

with ScriptedEndpoint(script, models=({{"id": name, "max_model_len": 9000}},), port=int(port)):
    note("starts")
    end.wait()
    note("ends")
"""
ONE_BY_ONE = ["policy starts", "policy asked", "policy ends", "judge starts", "judge asked", "judge ends"]
TOGETHER = ["policy starts", "policy asked", "judge starts", "judge asked", "judge ends", "policy ends"]


def stand_in(alone, part):
    """The command of a server that plays this part."""
    path = alone / "stand_in.py"
    path.write_text(STAND_IN.format(root=str(ROOT)))
    return f"{sys.executable} {path} {part} {{port}} {{name}}"


@pytest.fixture
def measure(lmu, run_eval, alone):
    """Runs `rlfr-eval vlm` with a model that is served here and the judge of `.env`; returns its result and diary."""

    def run(*arguments, judge="judge", data=tuple(SETS)):
        (alone / ".env").write_text(f'LOCAL_LLM=/models/a judge\nJUDGE_CMD="{stand_in(alone, judge)}"\n')
        diary = alone / "diary"
        diary.unlink(missing_ok=True)
        result = run_eval(
            "vlm", "--model", "m", "--server-cmd", stand_in(alone, "policy"), "--data", *data, "--data-dir", str(lmu),
            "--out", "run", *arguments,
        )  # fmt: skip
        return result, diary.read_text().splitlines() if diary.exists() else []

    return run


@pytest.mark.parametrize(("more", "wanted"), [((), ONE_BY_ONE), (("--keep-servers",), TOGETHER)])
def test_the_judge_starts_when_the_model_has_stopped_unless_it_is_kept(measure, scores, alone, more, wanted):
    (code, _, err), diary = measure(*more)
    assert code == 0, err
    assert diary == wanted
    found = scores(alone / "run")
    assert accuracies(found["benchmarks"]) == pytest.approx(BY_HAND) and found["judge"] == "/models/a judge"
    assert "starting the judge /models/a judge" in err and (alone / "run" / "judge-server.log").exists()
    # all is answered and judged: neither is needed again
    (code, _, err), diary = measure(*more)
    assert code == 0 and diary == [], err


def test_a_judge_that_nobody_needs_is_not_started(measure):
    (code, _, err), diary = measure(data=("VisuLogic",))
    assert code == 0 and diary == ["policy starts", "policy asked", "policy ends"], err


@pytest.mark.parametrize("more", [(), ("--keep-servers",)])
def test_an_unfit_judge_ends_both_and_costs_no_answer(measure, scores, alone, more):
    (code, _, err), diary = measure(*more, judge="junk")
    assert code == 2 and "is not fit" in err
    wanted = TOGETHER if more else ONE_BY_ONE
    assert diary == [line.replace("judge", "junk") for line in wanted]
    # with a fit one the same command goes on: the model is not even served
    (code, _, err), diary = measure(*more)
    assert code == 0 and diary == ["judge starts", "judge asked", "judge ends"], err
    assert accuracies(scores(alone / "run")["benchmarks"]) == pytest.approx(BY_HAND)


def test_a_judge_that_does_not_start_ends_the_kept_model(measure, alone, monkeypatch):
    monkeypatch.setenv("JUDGE_CMD", f"{sys.executable} -c \"raise SystemExit('no memory')\"")
    (code, _, err), diary = measure("--keep-servers")
    assert code == 2 and "the judge's server ended before it was ready" in err and "no memory" in err
    assert diary == ["policy starts", "policy asked", "policy ends"]
