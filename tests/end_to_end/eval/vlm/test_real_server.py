"""The eight sets asked of a real Qwen2.5-VL on a real vLLM server, images, chat template and all.

Its weights are set by hand, so that it answers `\\boxed{B}` to everything; which rows that makes right follows from
the golds of `sets.py` alone.
"""

import importlib.util
import json
import re
from itertools import pairwise

import pytest

from tests.end_to_end.eval.vlm.test_faults import finals
from tests.end_to_end.eval.vlm.test_runs import ROWS
from tests.eval.vlm.sets import KNOWN, SETS, text_of

# its tokenizer is small, so prompts are long; it has no use for positions, so those beyond its own do no harm
LONGER = """--max-model-len 4096 --hf-overrides '{"text_config": {"max_position_embeddings": 4096}}'"""
SAYS = "\\boxed{B}"
# golds B of rows: MathVista 3 of 8, MathVision 2 of 8, MathVerse 2 of 5, LogicVista 2 of 5, VisuLogic 2 of 6, DynaMath
# 2 of 6, MMMU's validation 3 of 6. WeMath's six problems: the second lacks its whole, which is half a point, the
# fourth lacks everything, the others are all right: 4.5 points.
BY_HAND = {
    "MathVista_MINI": 3 / 8, "MathVision_MINI": 2 / 8, "MathVerse_MINI": 2 / 5, "WeMath": 4.5 / 6, "LogicVista": 2 / 5,
    "VisuLogic": 2 / 6, "DynaMath": 2 / 6, "MMMU_DEV_VAL": 3 / 6,
}  # fmt: skip


def gold_is_b(sample):
    """MathVista's and MathVision's golds are an option's text, or its letter."""
    return sample.columns.get("answer_option", sample.columns["answer"]) == "B"


TRUE = {
    f"{name}/{index}/0": "right" if gold_is_b(sample) else "wrong"
    for name, samples in SETS.items()
    for index, sample in enumerate(samples)
}


def always(policy, processor, text):
    """Set weights so that a policy writes `text` and ends, whatever it is asked.

    Attention and MLPs add nothing, so a token hangs on the one before alone: the last token of a prompt and each
    token of the text have a direction of their own, from which the head reads what comes next.
    """
    import torch

    tokenizer = processor.tokenizer
    prompt = processor.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=True)
    chain = [tokenizer(prompt)["input_ids"][-1], *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    assert len(set(chain)) == len(chain), "a token that occurs twice would have two successors"
    policy.config.tie_word_embeddings = policy.config.text_config.tie_word_embeddings = False
    embeddings, head = policy.get_input_embeddings(), policy.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.zeros_like(embeddings.weight))
    with torch.no_grad():
        embeddings.weight.zero_()
        for layer in policy.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for place, (token, after) in enumerate(pairwise(chain)):
            embeddings.weight[token, place] = head.weight[after, place] = 1.0


def a_judge(body, n):
    """Says of known cases what is true, and of the policy's answer that it is B: a letter, and no number."""
    text = text_of(body)
    if answers := re.findall(r"\[Standard Answer\]: (.*)\n\s*\[Model_answer\] : (.*)", text):  # the last is no example
        return "1" if answers[-1][0] == answers[-1][1] else "0"
    if known := [reply for part, reply in KNOWN.items() if part in text]:
        return known[0]
    number = "three-digit floating-point number" in text or any(f"[{mark}]" in text for mark in NUMBERS)
    return "none" if number else "B"


NUMBERS = [  # of the questions that want one; DynaMath's prompts say so, but not which question it is
    f"{name}-{index}"
    for name in ("MathVista_MINI", "MathVision_MINI")
    for index, sample in enumerate(SETS[name])
    if str(sample.columns["answer"])[0].isdigit()
]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.slow
def test_a_policy_on_a_real_server(make_policy, processor, lmu, serve, run_eval, scores, alone):
    model = alone / "policy"
    policy = make_policy(hidden_size=128, num_heads=4)
    always(policy, processor, SAYS)
    policy.save_pretrained(model)
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
    assert {(row["raw"], row["finish_reason"]) for row in rows} == {(SAYS, "stop")}
    # an image of 160 x 120 takes its tokens: prompts are longer than their text
    assert all(row["prompt_tokens"] > 20 and row["completion_tokens"] == 6 for row in rows)
    assert finals(alone / "run") == TRUE
    assert {name: one["accuracy"] for name, one in found.items()} == pytest.approx(BY_HAND)
    record = json.loads((alone / "run" / "run.json").read_text())
    assert len(record["model"]["fingerprint"]) == 16 and record["context"] == 4096
    own = {name: one.get("own", one) for name, one in record["cross_check"].items()}
    # VLMEvalKit counts the problems that WeMath's set of 525 lacks as mastered
    percent = {name: 100 * score for name, score in BY_HAND.items()} | {"WeMath": 100 * (525 - 6 + 4.5) / 525}
    assert own == pytest.approx(percent, abs=0.01)
