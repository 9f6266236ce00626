"""Server mode up to the weights: a real server, TRL's client with images, and the refusal where CUDA is missing."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch

from rlfr_vlm.cli import main
from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.vllm.patches import prepare_engine
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "serve_policy.sh"


@pytest.fixture
def server(make_policy, processor, tmp_path):
    """A policy that was exported and is served: its address and its folder."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    trained, tmp_path = tmp_path / "trained", tmp_path / "exported"
    make_policy(hidden_size=128, num_heads=4).save_pretrained(trained)  # vLLM's CPU attention wants heads of 32
    processor.save_pretrained(trained)
    assert main(["export", str(trained), "--to", str(tmp_path)]) == 0
    port = free_port()
    command = ["bash", str(SCRIPT), str(tmp_path), "--port", str(port), "--max-model-len", "256", "--dtype", "float32",
               "--enforce-eager"]  # fmt: skip
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=2)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        yield url, tmp_path
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.mark.slow
def test_the_server_answers_trls_client_with_images_as_the_policy_would(server, digits):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
    from trl.generation.vllm_client import VLLMClient
    from trl.generation.vllm_generation import VLLMGeneration

    from rlfr_vlm.data.encode import encode_prompts

    url, folder = server
    processor = AutoProcessor.from_pretrained(folder)
    policy = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [digits[0], digits[1]]
    batch = encode_prompts(processor, rows)
    prompts = [[token for token, kept in zip(ids, mask, strict=True) if kept]
               for ids, mask in zip(batch.input_ids.tolist(), batch.attention_mask.tolist(), strict=True)]  # fmt: skip
    client = VLLMClient(base_url=url, connection_timeout=10)
    generation = VLLMGeneration.__new__(VLLMGeneration)  # only to place the features, as it does in training
    generation.processing_class = policy.config  # which knows the image token
    features = [generation._place_features(own, ids) for own, ids in
                zip(client.image_features([row["images"] for row in rows]), prompts, strict=True)]  # fmt: skip
    banned = {"bad_words": ["<|image_pad|>", "<|vision_start|>"]}
    answer = client.generate(prompts=prompts, features=features, n=1, temperature=1.0, max_tokens=16, logprobs=0,
                             generation_kwargs=banned)  # fmt: skip
    assert answer["prompt_ids"] == prompts  # expanded once
    assert policy.config.image_token_id not in [token for ids in answer["completion_ids"] for token in ids]
    pixels, grids = batch.model_inputs()["pixel_values"], batch.model_inputs()["image_grid_thw"]
    counts, start = grids.prod(dim=1).tolist(), 0
    for number, (prompt, response) in enumerate(zip(prompts, answer["completion_ids"], strict=True)):
        ids = torch.tensor([prompt + response])
        own = pixels[start : start + counts[number]]
        start += counts[number]
        types = (ids == policy.config.image_token_id).long()
        with torch.no_grad():
            logits = policy(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=own,
                            image_grid_thw=grids[number : number + 1], mm_token_type_ids=types).logits  # fmt: skip
        logps = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = logps[range(len(response)), response]
        given = torch.tensor([token[0] for token in answer["logprobs"][number]])
        assert (expected - given).abs().max() < 0.05  # the ban moves what two tokens had to the others
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="no weight-transfer engine"):  # so far, and no further, without CUDA
            client.init_communicator(device=torch.device("cpu"))


def test_server_mode_is_refused_before_anything_is_loaded(monkeypatch):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"no CUDA device: TRL sends weights .* NCCL weight-transfer engine"):
        prepare_engine("server", freeze_vision=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="freeze_vision is false and rollout vllm-server"):
        prepare_engine("server", freeze_vision=False)
    prepare_engine("server", freeze_vision=True)


def test_the_script_prints_what_it_would_start():
    done = subprocess.run(
        ["bash", str(SCRIPT), "a model", "--port", "8123", "--dry-run"], capture_output=True, text=True, check=True
    )
    assert (
        "VLLM_SERVER_DEV_MODE=1 .venv/bin/python -m vllm.entrypoints.openai.api_server --model a\\ model"
        in done.stdout
    )
    assert "--host 127.0.0.1" in done.stdout and "--port 8123" in done.stdout
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "name the policy" in done.stderr
