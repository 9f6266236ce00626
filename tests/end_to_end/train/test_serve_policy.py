"""Server mode with a real server: TRL's client with images, and training with weights through a folder."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image

from rlfr_vlm.cli import main
from rlfr_vlm.commands.train import build_trainer
from rlfr_vlm.config_file import parse_config
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import ScriptArguments
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.vllm import follow_check
from rlfr_vlm.trainer.vllm.patches import weights_folder
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts" / "serve_policy.sh"


@pytest.fixture(scope="module")
def server(make_policy, processor, tmp_path_factory):
    """A policy that was exported and is served: its address and its folder."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    folder = tmp_path_factory.mktemp("served")
    trained, tmp_path = folder / "trained", folder / "exported"
    policy = make_policy(hidden_size=128, num_heads=4)  # vLLM's CPU attention wants heads of 32
    policy.config.text_config.max_position_embeddings = 4096  # room for descriptions of tools
    with torch.no_grad():
        policy.model.visual.merger.mlp[-1].weight *= 30  # so that log-probs depend on what an image shows
    policy.save_pretrained(trained)
    processor.save_pretrained(trained)
    assert main(["export", str(trained), "--to", str(tmp_path)]) == 0
    port = free_port()
    command = ["bash", str(SCRIPT), str(tmp_path), "--port", str(port), "--max-model-len", "2048",
               "--dtype", "float32", "--enforce-eager"]  # fmt: skip
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


def build(url, policy, out, *settings):
    """A trainer on images that takes a server's responses."""
    options, args = parse_config((ScriptArguments, RLFRConfig), [
        "--model_name_or_path", str(policy), "--dataset_name", "digits", "--dataset_limit", "64", "--method", "rlvr",
        "--rollout", "vllm-server", "--vllm_server_base_url", url, "--output_dir", str(out), "--max_steps", "4",
        "--per_device_train_batch_size", "8", "--steps_per_generation", "2", "--gradient_accumulation_steps", "2",
        "--num_generations", "8", "--max_completion_length", "32", "--learning_rate", "1e-2",
        "--lr_scheduler_type", "constant", "--save_strategy", "no", "--report_to", "none", "--bf16", "false",
        "--use_cpu", "true", "--logging_steps", "1", "--server_weights", "folder", *settings])  # fmt: skip
    trainer = build_trainer(options, args)
    trainer.reward_funcs[0] = favour_short  # random weights are never right, and updates need a difference
    return trainer


def train_on(*arguments):
    """Train; returns the trainer and what it logged of each rollout."""
    trainer = build(*arguments)
    trainer.train()
    logged = [line for line in trainer.state.log_history if "rollout/logp_gap_max" in line]
    return trainer, logged


CALL = '{"name": "zoom", "arguments": {"left": 0, "top": 0, "right": 0.5, "bottom": 1}}'
ZOOM = f"<tool_call>\n{CALL}\n</tool_call><|im_end|>"


def begin_with_zoom(trainer, image=lambda image: image):
    """Let each response begin with a call of the tool zoom, which the policy did not write itself.

    Args:
        image: what the server gets for the tool's image.

    Returns:
        For each request the images of its prompts, and for each rollout the number and the largest difference of the
        log-probs of tokens that the server wrote behind the tool's image.
    """
    ids = trainer.tokenizer(ZOOM, add_special_tokens=False)["input_ids"]
    generate, turns, gaps = trainer.vllm_generation.generate, [], []

    def forced(prompts, images, **settings):
        turns.append([len(row) for row in images])
        images = [[row[0], *map(image, row[1:])] for row in images]
        prompts, responses, logprobs, tokens = generate(prompts, images, **settings)
        if max(turns[-1]) == 1:  # the tool has not been called yet
            responses, logprobs = [ids] * len(prompts), [[[0.0]] * len(ids)] * len(prompts)
        return prompts, responses, logprobs, tokens

    def compare(batch, rollout):
        sampled, own = batch["sampling_per_token_logps"], batch["old_per_token_logps"]
        wrote = batch["tool_mask"].bool() & batch["completion_mask"].bool() & (sampled != 0)
        gaps.append((int(wrote.sum()), float((sampled - own)[wrote].abs().max())))

    trainer.vllm_generation.generate, trainer._check_rollout = forced, compare
    return turns, gaps


def favour_short(completions, **_):
    return [float(len(one[-1]["content"]) % 2) for one in completions]


@pytest.mark.slow
def test_a_server_gets_every_update_through_a_folder(server, monkeypatch, tmp_path):
    """The server's log-probs are the trainer's after each update, with a trained vision tower, LoRA, or ahead."""
    url, policy = server
    moved = []
    monkeypatch.setattr(follow_check, "refuse_standstill", lambda before, after: moved.append(before != after))
    _, logged = train_on(url, policy, tmp_path / "plain", "--freeze_vision", "false")
    assert len(logged) == 4 and moved == [True]
    assert max(line["rollout/logp_gap_max"] for line in logged) < 1e-3
    assert not (tmp_path / "plain" / "server_weights").exists()  # the server has read it

    lora = ("--use_peft", "true", "--lora_r", "4", "--learning_rate", "1e-1")
    trainer, logged = train_on(url, policy, tmp_path / "lora", *lora)
    assert len(logged) == 4 and moved == [True, True]
    assert max(line["rollout/logp_gap_max"] for line in logged) < 1e-3
    assert any("lora_" in name for name, _ in trainer.model.named_parameters())

    # ahead with a policy that stands still: the responses are those of the right prompts and images
    evaluated = ("--eval_strategy", "steps", "--eval_steps", "1", "--eval_rows", "4")
    ahead = ("--rollout_ahead", "true", *evaluated)
    trainer, logged = train_on(url, policy, tmp_path / "still", *ahead, "--learning_rate", "0")
    assert [line["rollout/age"] for line in logged] == [0, 1, 1, 1]
    assert max(line["rollout/logp_gap_max"] for line in logged) < 1e-3
    assert trainer.vllm_generation.vllm_client.is_idle

    # and with one that moves: an older policy's log-probs, which are corrected for
    _, logged = train_on(url, policy, tmp_path / "ahead", *ahead)
    assert [line["rollout/age"] for line in logged] == [0, 1, 1, 1]
    assert logged[0]["rollout/logp_gap_max"] < 1e-3 < min(line["rollout/logp_gap_max"] for line in logged[1:])
    assert any(line["sampling/importance_sampling_ratio/max"] != 1 for line in logged[1:])


@pytest.mark.slow
def test_a_server_that_does_not_follow_or_sees_no_weights_stops_the_run(server, monkeypatch, tmp_path):
    from rlfr_vlm.trainer.vllm import server_client
    from rlfr_vlm.trainer.vllm.server_client import PolicyServer

    url, policy = server
    update, calls = PolicyServer.update_named_params, []

    def only_once(self, metadata, weights):
        calls.append(1)
        update(self, metadata, weights) if len(calls) == 1 else list(weights)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyServer, "update_named_params", only_once)
        with pytest.raises(UserError, match="the new weights never reached it"):
            train_on(url, policy, tmp_path / "stale")
    elsewhere = tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        patch.setattr(server_client, "write_weights", lambda *_: elsewhere)
        with pytest.raises(UserError, match=r"did not load the policy's weights: the server sees no weights in"):
            train_on(url, policy, elsewhere)


@pytest.mark.slow
def test_responses_go_on_behind_the_image_of_a_tool(server, tmp_path):
    url, policy = server
    tools = (
        "--environment",
        "zoom",
        "--max_completion_length",
        "200",
        "--max_steps",
        "2",
        "--max_tool_calling_iterations",
        "1",
    )
    trainer = build(url, policy, tmp_path / "zoom", *tools)
    turns, gaps = begin_with_zoom(trainer)
    trainer.train()
    assert turns == [[1] * 16, [2] * 16] * 2  # the digits, then a part of them, too
    assert len(gaps) == 2 and all(count > 8 and gap < 1e-5 for count, gap in gaps)

    trainer = build(url, policy, tmp_path / "other", *tools, "--max_steps", "1")
    _, gaps = begin_with_zoom(trainer, lambda image: Image.effect_noise(image.size, 120).convert("RGB"))
    trainer.train()
    assert gaps[0][1] > 1e-4  # another image would be seen


def test_a_server_that_is_gone_is_named(tmp_path, capsys):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from rlfr_vlm.trainer.vllm.server_client import PolicyServer

    with pytest.raises(
        UserError, match=r"The vLLM server at http://127.0.0.1:\d+ does not answer \(ConnectionError\)"
    ):
        PolicyServer(weights_folder=tmp_path, base_url=f"http://127.0.0.1:{free_port()}", connection_timeout=0.1)
    assert "waiting for the vLLM server at http://127.0.0.1:" in capsys.readouterr().err


def test_weights_go_over_nccl_with_cuda_and_through_a_folder_without(monkeypatch, tmp_path, arguments):
    def folder(**settings):
        return weights_folder(RLFRConfig(**arguments(method="rlvr", rollout="vllm-server", **settings)))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert folder(output_dir=str(tmp_path)) == tmp_path / "server_weights"
    assert folder(server_weights_folder=str(tmp_path)).parent == tmp_path  # the folder itself may hold other things
    with pytest.raises(UserError, match="server_weights is nccl, but this process has no CUDA device"):
        folder(server_weights="nccl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert folder() is None and folder(server_weights="nccl") is None
    assert folder(server_weights="folder", output_dir=str(tmp_path)) == tmp_path / "server_weights"


def test_the_script_prints_what_it_would_start():
    done = subprocess.run(
        ["bash", str(SCRIPT), "a model", "--port", "8123", "--dry-run"], capture_output=True, text=True, check=True
    )
    assert (
        "VLLM_SERVER_DEV_MODE=1 .venv/bin/python -m vllm.entrypoints.openai.api_server --model a\\ model"
        in done.stdout
    )
    assert "--worker-extension-cls rlfr_vlm.trainer.vllm.worker_extension.LoadsPolicy" in done.stdout
    assert "--host 127.0.0.1" in done.stdout and "--port 8123" in done.stdout
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "name the policy" in done.stderr
