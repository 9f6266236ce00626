"""The comparison with lm-eval in benchmarks/smollm2: prompts, golds, replayed answers, counts of agreement."""

import importlib
import json
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest

from rlfr_eval.benchmarks.text_presets import preset
from rlfr_vlm.errors import UserError

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "smollm2"
TOY = """
name = "toy"
title = "Toy"
licence = "none"
n = 2
prompt = "qwen-box"
[source]
repo = "nowhere"
[sampling]
max_tokens = 8
"""
ROWS = [{"id": "toy-0", "problem": "1+1?", "answer": "2"}, {"id": "toy-1", "problem": "2+2?", "answer": "4"}]


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def script(monkeypatch):
    """Import a script by name, with its folder on sys.path as when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


@pytest.fixture
def scorers(monkeypatch):
    """The scorers of the tasks; stand-ins for lm-eval's, which accept a response that equals the gold."""
    hendrycks, minerva = ModuleType("utils"), ModuleType("utils")
    hendrycks.process_results = lambda doc, results: {
        "exact_match": int(doc["solution"] == f"\\boxed{{{results[0]}}}")
    }
    minerva.process_results = lambda doc, results: {"exact_match": int(doc["answer"] == results[0]), "math_verify": 0}
    minerva.normalize_final_answer = str
    for name in ("lm_eval", "lm_eval.tasks", "lm_eval.tasks.hendrycks_math", "lm_eval.tasks.minerva_math"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lm_eval.tasks.hendrycks_math"].utils = hendrycks
    sys.modules["lm_eval.tasks.minerva_math"].utils = minerva
    spec = importlib.util.spec_from_file_location("scorers", FOLDER / "lm_eval/scorers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path):
    """A run that answered both problems: the first one right, the second one in words that rules cannot decide."""
    (tmp_path / "toy.toml").write_text(TOY)
    lines(tmp_path / "toy.jsonl", ROWS)
    ids = [f"toy/toy-{n}/0" for n in range(2)]
    samples = [
        {"id": ids[n], "benchmark": "toy", "problem": f"toy-{n}", "raw": raw} for n, raw in enumerate(["2\n", "four"])
    ]
    lines(tmp_path / "run/samples.jsonl", samples)
    verdicts = [(ids[0], "wrong", ""), (ids[1], "undecided", "free text"), (ids[0], "right", "")]
    rows = [{"id": one, "by": "rules", "verdict": verdict, "reason": reason} for one, verdict, reason in verdicts]
    lines(tmp_path / "run/verdicts.jsonl", rows)
    return tmp_path / "run"


@pytest.fixture
def ask(script, run):
    """A replay server of the run: the status and the JSON of its reply to a request."""
    replay = script("replay")
    answers = replay.stored_answers([run], run.parent, [str(run.parent / "toy.toml")])
    with replay.server(answers, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def post(prompt, path="/v1/completions"):
            url = f"http://127.0.0.1:{server.server_port}{path}"
            request = urllib.request.Request(url, json.dumps({"prompt": prompt, "max_tokens": 8}).encode())
            try:
                with urllib.request.urlopen(request) as reply:
                    return reply.status, json.load(reply)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        yield post
        server.shutdown()
        thread.join()


def test_the_tasks_ask_what_the_runs_asked(scorers):
    assert scorers.doc_to_text({"problem": "50% of 4?"}) == preset("qwen-box").text("50% of 4?")


@pytest.mark.parametrize("suite", ["math500", "aime24", "aime25", "amc23", "minerva_math", "olympiadbench"])
def test_each_suite_has_a_task_that_reads_its_file(script, suite):
    text = (FOLDER / f"lm_eval/boxed_{suite}.yaml").read_text()
    assert text.split("\n")[:2] == ["include: _boxed_yaml", f"task: boxed_{suite}"] and f" {suite}.jsonl\n" in text
    assert suite in script("replay").SUITES


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        (142.0, ["142"]),
        ("\\$18.90", ["\\$18.90"]),
        (["$69$,$84$"], ["69,84"]),
        (["41.8^\\circ\n", "41.8^\\circ", "42"], ["41.8^\\circ", "42"]),
    ],
)
def test_golds_are_texts_without_dollar_signs(scorers, answer, golds):
    assert scorers.golds(answer) == golds


def test_a_response_is_right_by_one_of_the_golds(scorers):
    right = {"hendrycks_exact_match": 1, "minerva_exact_match": 1, "minerva_math_verify": 0}
    assert scorers.process_results({"golds": ["3", "5"]}, ["5"]) == right
    assert not any(scorers.process_results({"golds": ["3", "5"]}, ["4"]).values())


def test_a_prompt_gets_the_answer_of_the_run(ask):
    first, second = (preset("qwen-box").text(row["problem"]) for row in ROWS)
    assert [choice["text"] for choice in ask([second, first])[1]["choices"]] == ["four", "2\n"]
    assert ask(first)[1]["choices"] == [{"index": 0, "text": "2\n"}]


@pytest.mark.parametrize(("prompt", "path"), [("1+1?", "/v1/completions"), (None, "/v1/chat/completions")])
def test_any_other_request_is_an_error(ask, prompt, path):
    known = preset("qwen-box").text(ROWS[0]["problem"])
    status, reply = ask([known, prompt or known], path)
    assert status == 404 and path in reply["error"]["message"] and "choices" not in reply


def test_runs_that_disagree_or_answer_another_suite_are_refused(script, run):
    other = lines(run.parent / "other/samples.jsonl", [json.loads((run / "samples.jsonl").open().readline())]).parent
    suites = [str(run.parent / "toy.toml")]
    assert len(script("replay").stored_answers([run, other], run.parent, suites)) == 2
    lines(other / "samples.jsonl", [{"id": "toy/toy-0/0", "benchmark": "toy", "problem": "toy-0", "raw": "3"}])
    with pytest.raises(UserError, match=r"other answers toy/toy-0/0 in other words"):
        script("replay").stored_answers([run, other], run.parent, suites)
    lines(other / "samples.jsonl", [{"id": "gym/gym-0/0", "benchmark": "gym", "problem": "gym-0", "raw": "3"}])
    with pytest.raises(UserError, match=r"other has gym/gym-0/0, whose prompt is unknown"):
        script("replay").stored_answers([run, other], run.parent, suites)


def log(path, *responses):
    scores = {"hendrycks_exact_match": 0, "minerva_exact_match": 1, "minerva_math_verify": 1}
    return lines(path, [{"doc": ROWS[n], "resps": [[text]], **scores} for n, text in enumerate(responses)])


def test_scores_and_verdicts_are_counted_by_hand(script, run):
    agreement = script("agreement")
    table = list(agreement.rows([log(run.parent / "log.jsonl", "2\n", "four")], [run]))
    assert table == [
        {"problem": "toy-0", "hendrycks": 0, "minerva": 1, "math_verify": 1, "verdict": "right"},
        {"problem": "toy-1", "hendrycks": 0, "minerva": 1, "math_verify": 1, "verdict": "undecided"},
    ]
    none = {"theirs only": 0, "both wrong": 0}
    exact = {"right": 0, "both right": 0, "ours only": 1, "undecided, right there": 0, "undecided, wrong there": 1}
    verify = {"right": 2, "both right": 1, "ours only": 0, "undecided, right there": 1, "undecided, wrong there": 0}
    assert agreement.counts(table, "hendrycks") == exact | none
    assert agreement.counts(table, "math_verify") == verify | none


def test_another_response_ends_the_comparison(script, run):
    with pytest.raises(SystemExit, match="another response to toy-0"):
        list(script("agreement").rows([log(run.parent / "log.jsonl", "2")], [run]))
