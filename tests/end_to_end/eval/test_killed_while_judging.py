"""Killed while a judge judges: no stored verdict is reached twice, the verdicts are the same, no process is left."""

import json
import math
import random
import re

import pytest

from tests.end_to_end.eval.test_judged_runs import judge
from tests.eval.killing import all_gone, complete_lines, kill_when, started
from tests.eval.vlm import sets

KILLS = [pytest.param(1, id="once"), pytest.param(10, id="ten times", marks=pytest.mark.slow)]
LEFT_FOR = 2.0  # seconds after a kill within which every process that the command started must have ended
DELAY, FOREVER = 0.05, 60.0  # seconds that the judge takes for a reply: before the kill, and for those it comes upon


def judged_lines(folder):
    """A judge's lines in verdicts.jsonl."""
    rows = map(json.loads, complete_lines(folder / "verdicts.jsonl"))
    return [row for row in rows if row["by"] == "judge"]


def verdicts(folder):
    """id -> all that a judge's verdict consists of; every answer has one line."""
    lines = judged_lines(folder)
    found = {row["id"]: {key: value for key, value in row.items() if key not in ("time", "cached")} for row in lines}
    assert len(found) == len(lines), "an answer was judged twice"
    return found


class KilledRun:
    """A command that is killed several times while it judges, and then goes on to its end.

    Attributes:
        asked: ids of the answers that the judge was asked about since the last start.
    """

    def __init__(self, folder, arguments, id_of):
        self.folder, self.arguments, self.id_of = folder, arguments, id_of
        self.asked, self.goal = set(), math.inf

    def judge(self, reply, make_reaction):
        """A script that notes what it is asked. It leaves the last requests open, for the kill to come upon them."""

        def script(body, n):
            if found := self.id_of(body):
                self.asked.add(found)
            held = len(judged_lines(self.folder)) >= self.goal
            return make_reaction(reply(body, n), delay=FOREVER if held else DELAY)

        return script

    def kill(self, goal, concurrency, expected_processes):
        """Start the command, kill it once `goal` answers are judged, and check what is left."""
        stored = set(verdicts(self.folder))
        self.goal = max(goal, len(stored) + 1)
        self.asked.clear()
        with started(*self.arguments, JUDGE_CONCURRENCY=str(concurrency)) as process:
            descendants = kill_when(process, lambda: len(judged_lines(self.folder)) >= self.goal)
        for name in expected_processes:
            assert any(name in " ".join(command) for command in descendants.values()), (name, descendants)
        assert all_gone(list(descendants), LEFT_FOR), descendants
        assert not stored & self.asked

    def finish(self):
        """Let the command end; returns its exit code."""
        stored = set(verdicts(self.folder))
        self.asked.clear()
        self.goal = math.inf
        with started(*self.arguments) as process:
            code = process.wait()
        assert not stored & self.asked and self.asked, "nothing was left to judge, or something was judged again"
        return code


def goals(kills, answers):
    """Numbers of judged answers at which to kill, each with a concurrency. The last kill leaves answers open."""
    chance = random.Random(kills)
    return [(goal, chance.randint(1, 2)) for goal in sorted(chance.sample(range(1, answers - 12), kills))]


WHY = 60
ENDLESS = {"id": "power", "problem": "What is it?", "answer": "x"}  # stops the grader in each call, so that it runs


def policy(body, n):
    text = body["messages"][-1]["content"]
    if not (found := re.search(r"Why (\d+)\?", text)):
        return r"\boxed{\int_0^\infty e^{-x^2}\sin(x^3+\ln x)dx}"
    return f"\\boxed{{the {'cold' if int(found[1]) % 2 == 0 else 'warm'} season came before}}"


def id_of_text(body):
    found = re.search(r" ===\n(?:Why (\d+)\?|What is it\?)\n", body["messages"][1]["content"])
    return found and f"toy/{'power' if found[1] is None else 't' + found[1]}/0"


@pytest.mark.parametrize("kills", KILLS)
def test_lm_killed_while_it_judges(serve, make_reaction, toy, run_eval, scores, alone, kills):
    rows = [{"id": f"t{i}", "problem": f"Why {i}?", "answer": "because the winter was cold"} for i in range(WHY)]
    server, name = serve(policy), toy(rows=[*rows, ENDLESS])
    arguments = ["lm", "--base-url", server.url, "--suite", name, "--data-dir", "data", "--no-judge-cache"]
    judging = serve(judge)
    arguments += ["--judge-base-url", judging.url]
    assert run_eval(*arguments, "--out", "whole")[0] == 0
    run = KilledRun(alone / "run", [*arguments, "--out", "run"], id_of_text)
    judging.script = run.judge(judge, make_reaction)
    for goal, concurrency in goals(kills, WHY):
        run.kill(goal, concurrency, ["rlfr_vlm.grading.worker"])
    assert run.finish() == 0
    assert verdicts(alone / "run") == verdicts(alone / "whole") and len(verdicts(alone / "run")) == WHY + 1
    assert len(server.requests) == 2 * (WHY + 1)  # the model was asked once for each answer of the two runs
    one, whole = (scores(alone / out)["benchmarks"]["toy"] for out in ("run", "whole"))
    assert (one["right"], one["wrong"], one["undecided"], one["judged"]) == (30, 31, 0, 61)
    assert (whole["right"], whole["wrong"], whole["undecided"], whole["judged"]) == (30, 31, 0, 61)


VLM = ("MathVista_MINI", "MathVision_MINI", "MathVerse_MINI", "LogicVista", "DynaMath", "MMMU_DEV_VAL")
TRUE = {
    f"{name}/{index}/0": "right" if sample.right else "wrong"
    for name in VLM
    for index, sample in enumerate(sets.SETS[name])
    if sample.judge
}


def id_of_image(body):
    found = sets.MARKER.search(sets.text_of(body))
    return found and f"{found[1]}/{found[2]}/0"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [10])
def test_vlm_killed_while_it_judges(serve, make_reaction, vlm, lmu, alone, kills):
    judging = serve(sets.judge, models=({"id": "j"},))
    code, _, err = vlm("--judge-base-url", judging.url, "--no-judge-cache", data=VLM, out="whole")
    assert code == 0, err
    arguments = ["vlm", "--base-url", vlm.server.url, "--data", *VLM, "--data-dir", str(lmu), "--out", "run",
                 "--judge-base-url", judging.url, "--no-judge-cache"]  # fmt: skip
    run = KilledRun(alone / "run", arguments, id_of_image)
    judging.script = run.judge(sets.judge, make_reaction)
    for goal, concurrency in goals(kills, len(TRUE)):
        run.kill(goal, concurrency, ["worker/__main__.py", "rlfr_vlm.grading.worker"])
    assert run.finish() == 0
    assert verdicts(alone / "run") == verdicts(alone / "whole")
    assert {key: row["verdict"] for key, row in verdicts(alone / "run").items()} == TRUE
    assert len(vlm.server.requests) == 2 * sum(len(sets.SETS[name]) for name in VLM)
