"""The eight sets asked of a real Qwen2.5-VL on a real vLLM server, images, chat template and all."""

import importlib.util
import json

import pytest

from tests.eval.vlm.sets import SETS, judge_reply, text_of
from tests.eval.vlm.test_runs import ROWS

# its tokenizer is small, so prompts are long; untrained as it is, positions beyond its own do no harm
LONGER = """--max-model-len 4096 --hf-overrides '{"text_config": {"max_position_embeddings": 4096}}'"""


def a_judge(body, n):
    """Says of known cases what is true, and of what an untrained model writes that it names nothing."""
    text = text_of(body)
    try:
        return judge_reply(text)
    except StopIteration:
        return "Z" if "Z" in text else "0" if "Judgement:" in text else "none"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_a_policy_on_a_real_server(make_policy, processor, lmu, serve, run_eval, scores, alone):
    model = alone / "policy"
    make_policy(hidden_size=128, num_heads=4).save_pretrained(model)
    processor.save_pretrained(model)
    judge = serve(a_judge, models=({"id": "j"},))
    command = (
        "vlm", "--model", str(model), "--data", *SETS, "--data-dir", str(lmu), "--out", "run", "--max-tokens", "8",
        "--judge-base-url", judge.url, "--server-args", LONGER, "--concurrency", "8",
        "--cross-check",
    )  # fmt: skip
    code, _, err = run_eval(*command)
    assert code == 0, err
    found = scores(alone / "run")["benchmarks"]
    assert sum(one["answered"] for one in found.values()) == ROWS and not any(one["missing"] for one in found.values())
    rows = [json.loads(line) for line in (alone / "run" / "samples.jsonl").read_text().splitlines()]
    # an image of 160 x 120 takes its tokens: prompts are longer than their text
    assert all(row["prompt_tokens"] > 20 and 0 < row["completion_tokens"] <= 8 for row in rows)
    record = json.loads((alone / "run" / "run.json").read_text())
    assert len(record["model"]["fingerprint"]) == 16 and record["context"] == 4096
    # untrained, it writes line ends: no answer, which is wrong without a judge; VLMEvalKit's rules say the same
    told = {name: one for name, one in record["cross_check"].items() if "own" in one}
    assert all(one["own"] == pytest.approx(one["here"]) for one in told.values()) and "VisuLogic" in told, told
