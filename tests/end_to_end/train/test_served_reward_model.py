"""A reward model behind vLLM's own server gives what it gives in this process."""

import sys

import pytest

from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards import build_rewards
from rlfr_vlm.servers.server import HOST, Server, free_port
from rlfr_vlm.servers.wait_notice import WaitNotice

PROMPTS = [[{"role": "user", "content": f"What is {number} + 1?"}] for number in range(3)]
COMPLETIONS = [[{"role": "assistant", "content": text}] for text in ("1", "It is two.", "three")]


@pytest.fixture
def folder(tmp_path):
    """A small random Llama with one output; its heads have a width that vLLM's CPU build takes."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from rlfr_vlm.pretrained.qwen_processor import CHAT_TEMPLATE
    from rlfr_vlm.quickstart.small_policy import build_tokenizer

    tokenizer = build_tokenizer(["What is 1 + 1? It is two."] * 10, 300)
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.slow
def test_outputs_are_those_of_the_model_here(folder, tmp_path, monkeypatch):
    pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += [
        "--host",
        HOST,
        "--runner",
        "pooling",
        "--convert",
        "classify",
        "--dtype",
        "float32",
        "--enforce-eager",
    ]
    options = RewardOptions(reward_model=str(folder), reward_model_device="cpu", reward_model_dtype="float32")
    here = build_rewards(["reward_model"], options, 8)[0](prompts=PROMPTS, completions=COMPLETIONS)
    with Server(command, f"http://{HOST}:{port}/v1", tmp_path / "server.log", label="the reward model") as server:
        server.wait_ready(WaitNotice("starting"))
        served = build_rewards(["reward_model"], RewardOptions(reward_model=server.url), 8)[0]
        assert served(prompts=PROMPTS, completions=COMPLETIONS) == pytest.approx(here, abs=1e-4)
