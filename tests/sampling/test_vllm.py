"""vLLM as engine of `rlfr sample`, on a real engine: its responses, log-probs and images are the policy's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.models.vision import vision_token_ids

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 12


@pytest.mark.slow  # starts vLLM, which takes half a minute
def test_responses_and_log_probs_are_the_policys(make_policy, processor, tmp_path):
    """Random weights would sample a vision token every sixty tokens; images are enlarged to more than two tokens."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    policy = make_policy(hidden_size=128, num_heads=4, num_layers=4)  # vLLM's CPU attention wants heads of 32 or more
    folder = str(tmp_path / "policy")
    policy.save_pretrained(folder)
    processor.save_pretrained(folder)
    command = [sys.executable, "-m", "rlfr_vlm.cli", "sample", "--engine", "vllm", "--policy", folder,
               "--data", "digits", "--dataset_limit", "6", "--samples", "8", "--max_new_tokens", str(LIMIT),
               "--image_min_pixels", "6272", "--out", str(tmp_path / "rows.jsonl"),
               "--vllm_max_model_length", "256", "--vllm_gpu_memory_utilization", "0.3"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 48 and len({tuple(row["completion_ids"]) for row in rows}) > 40
    banned, end = set(vision_token_ids(policy, processor)), processor.tokenizer.eos_token_id
    for row in rows:
        ids = row["completion_ids"]
        assert not banned & set(ids) and 1 <= len(ids) <= LIMIT and end not in ids[:-1]
        assert row["truncated"] == (ids[-1] != end)
        assert row["response"] == processor.tokenizer.decode(ids, skip_special_tokens=True)
    enlarging = AutoProcessor.from_pretrained(folder, min_pixels=6272)
    stored = load_rows("digits", limit=6)
    prompts = [stored[row["prompt_index"]] for row in rows]
    ids = [row["completion_ids"] for row in rows]
    batch = append_responses(encode_prompts(enlarging, prompts), ids, 0)
    with torch.no_grad():
        logps = policy(**batch.model_inputs()).logits.log_softmax(dim=-1)  # banned tokens included
    start = batch.input_ids.shape[1] - batch.completion_mask.shape[1]
    expected = [
        sum(logps[number, start + place - 1, token].item() for place, token in enumerate(tokens))
        for number, tokens in enumerate(ids)
    ]
    assert [row["logp"] for row in rows] == pytest.approx(expected, abs=2e-2)
