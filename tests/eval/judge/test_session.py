"""A judge of our own: lmdeploy's command line and API by a stand-in, and vLLM for real."""

import json
import sys
from pathlib import Path

import pytest

from tests.eval.stub_server import IMPORTS

ROOT = Path(__file__).resolve().parents[3]

# Takes the arguments that a judge is served with and answers as `lmdeploy serve api_server` does. What lmdeploy itself
# takes and answers is tested in tests/end_to_end/eval/test_lmdeploy_http.py.
STAND_IN = (
    "#!{python}\n"
    + IMPORTS
    + """
import argparse, re
top = argparse.ArgumentParser()
top.add_argument("serve", choices=["serve"])
top.add_argument("kind", choices=["api_server"])
top.add_argument("model_path")
top.add_argument("--model-name")
top.add_argument("--server-name", default="0.0.0.0")
top.add_argument("--server-port", type=int, default=23333)
top.add_argument("--generation-config", default="auto")
given = top.parse_args()
print("serving", given.model_path, flush=True)

class Handler(JsonHandler):
    def do_GET(self):
        self.reply({{"object": "list", "data": [{{"id": given.model_name, "object": "model", "root": given.model_name,
                    "created": 0, "owned_by": "lmdeploy", "parent": None, "permission": []}}]}})
    def do_POST(self):
        asked = self.body()
        text = asked["messages"][1]["content"]
        gold, answer = re.findall(r"(?:REFERENCE|STUDENT'S) ANSWER \\w+ ===\\n(.*?)\\n=== END", text, re.S)
        same = bool(set(gold.lower().split()) & set(answer.lower().split()))
        reply = "VERDICT " + text.rsplit("VERDICT ", 1)[1][:6] + (": CORRECT" if same else ": INCORRECT")
        usage = {{"prompt_tokens": 9, "total_tokens": 12, "completion_tokens": 3}}
        self.reply(completion(asked["model"], reply, usage=usage))

serve(Handler, given.server_port, given.server_name)
"""
)
ROWS = [
    {"id": "t0", "problem": "Why?", "answer": "because the winter was cold"},
    {"id": "t1", "problem": "How?", "answer": "by a slow river boat"},
    {"id": "n0", "problem": "Number?", "answer": "7"},
]


def policy(body, n):
    text = body["messages"][-1]["content"]
    return {"Why?": "\\boxed{a cold season came}", "How?": "\\boxed{on foot over hills}"}.get(text, "\\boxed{7}")


@pytest.fixture
def lmdeploy(alone):
    """The stand-in where `scripts/setup_judge.sh` puts the real one."""
    path = alone / ".venv-judge" / "bin" / "lmdeploy"
    path.parent.mkdir(parents=True)
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)


def test_local_llm_starts_lmdeploy_for_the_judging_only(lmdeploy, serve, toy, run_eval, scores, alone):
    import psutil

    (alone / ".env").write_text("LOCAL_LLM=/models/a judge\nOPENAI_API_KEY=sk-unused-unused\n")
    server = serve(policy)
    asked = ("--suite", toy(rows=ROWS), "--data-dir", "data", "--out", "run")
    code, _, err = run_eval("lm", "--base-url", server.url, *asked, "--judge-force")
    found = scores(alone / "run")
    assert code == 0 and found["judge"] == "/models/a judge"
    assert (found["benchmarks"]["toy"]["right"], found["benchmarks"]["toy"]["wrong"]) == (2, 1)
    assert found["benchmarks"]["toy"]["judged"] == 2 and "starting the judge /models/a judge" in err
    assert "serving /models/a judge" in (alone / "run" / "judge-server.log").read_text()
    assert not [p for p in psutil.process_iter(["cmdline"]) if "/models/a judge" in (p.info["cmdline"] or [])]


def test_local_llm_without_lmdeploy_says_how_to_get_it(serve, toy, run_eval, alone, monkeypatch):
    monkeypatch.setenv("LOCAL_LLM", "/models/judge")
    code, _, err = run_eval("lm", "--base-url", serve(policy).url, "--suite", toy(rows=ROWS), "--data-dir", "data")
    assert code == 2 and "bash scripts/setup_judge.sh" in err and "JUDGE_CMD" in err
    monkeypatch.setenv("LOCAL_LLM", "none")
    assert run_eval("lm", "--base-url", serve(policy).url, "--suite", toy(rows=ROWS), "--data-dir", "data",
                    "--out", "other")[0] == 0  # fmt: skip


def test_judge_command_that_ends_at_once_shows_its_log(serve, toy, run_eval, monkeypatch):
    monkeypatch.setenv("LOCAL_LLM", "x")
    monkeypatch.setenv("JUDGE_CMD", f"{sys.executable} -c \"raise SystemExit('no memory')\"")
    code, _, err = run_eval("lm", "--base-url", serve(policy).url, "--suite", toy(rows=ROWS), "--data-dir", "data")
    assert code == 2 and "the judge's server ended before it was ready" in err and "no memory" in err


@pytest.mark.slow
def test_a_real_policy_and_a_real_judge_on_vllm(make_policy, processor, toy, run_eval, scores, alone, monkeypatch):
    """Two real vLLM servers one after the other; random weights, so the judge's verdicts are all undecided."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    import torch

    policy = make_policy(hidden_size=128, num_heads=4, num_layers=2)  # vLLM's CPU attention wants heads of 32 or more
    policy.save_pretrained(alone / "policy")
    processor.save_pretrained(alone / "policy")
    rows = [{"id": f"p{i}", "problem": f"{i}+{i}?", "answer": "because the winter was cold"} for i in range(6)]
    name = toy(rows=rows, more='no_answer = "undecided"', sampling="temperature = 1.0\nsamples = 2")
    monkeypatch.setenv("LOCAL_LLM", str(alone / "policy"))
    vllm = f"{sys.executable} -m vllm.entrypoints.openai.api_server --model {{model}} --served-model-name {{name}} " \
           "--host {host} --port {port} --dtype float32 --enforce-eager --hf-overrides " \
           "'{\"text_config\": {\"max_position_embeddings\": 4096}}'"  # fmt: skip
    monkeypatch.setenv("JUDGE_CMD", vllm)
    monkeypatch.setenv("JUDGE_MAX_TOKENS", "8")
    if not torch.cuda.is_available():
        monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    code, _, err = run_eval(
        "lm", "--model", "./policy", "--suite", name, "--data-dir", "data", "--out", "run", "--max-tokens", "60",
        "--judge-force", "--extra-body", json.dumps({"stop_token_ids": list(range(240, 290))}),
    )  # fmt: skip
    assert "starting the judge" in err
    one = scores(alone / "run")["benchmarks"]["toy"]
    assert (one["answered"], one["missing"], one["samples"]) == (12, 0, 2)
    samples = [json.loads(line) for line in (alone / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(0 < row["completion_tokens"] <= 60 and row["prompt_tokens"] > 10 for row in samples)
    by_seed = {row["id"]: row["raw"] for row in samples}
    assert any(by_seed[f"toy/p{i}/0"] != by_seed[f"toy/p{i}/1"] for i in range(6))  # another seed, another answer
    verdicts = [json.loads(line) for line in (alone / "run" / "verdicts.jsonl").read_text().splitlines()]
    judged = [row for row in verdicts if row["by"] == "judge"]
    assert judged and all(row["verdict"] == "undecided" and row["reply"] for row in judged)
    assert one["right"] == 0 and not one["headline"] and code in (0, 3)
    run = json.loads((alone / "run" / "run.json").read_text())
    assert run["context"] == 512 and run["judges"]["toy"].startswith(str(alone / "policy"))
