"""vLLM as rollout engine: the checks by hand, and two steps of RLFR and RLVR with images on a real engine."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.qwen_vl import QwenVLFamily
from rlfr_vlm.trainer.vllm.follow_check import refuse_standstill
from rlfr_vlm.trainer.vllm.parity_checks import (
    check_image_tokens,
    gap_metrics,
    logp_gaps,
    refuse_gap,
    refuse_other_prompts,
)
from tests.models.families_table import ON_VLLM
from tests.models.small_families import VISION, build_policy, build_processor, wide

ROOT = Path(__file__).resolve().parents[3]


def train(folder, methods, *arguments):
    command = [sys.executable, "-m", "tests.trainer.vllm.engine_run", str(folder / "result.json"), methods,
               "--output_dir", str(folder / "run"), "--flow_path", str(folder / "flow"), "--dataset_name", "digits",
               "--dataset_limit", "32", "--rollout", "vllm-colocate", "--model_name_or_path",
               str(folder / "policy"), "--per_device_train_batch_size", "8",
               "--steps_per_generation", "1", "--num_generations", "8", "--max_steps", "2", "--save_strategy", "no",
               "--max_completion_length", "32", "--learning_rate", "1e-2", "--lr_scheduler_type", "constant",
               "--bf16", "false", "--report_to", "none", "--vllm_max_model_length", "256",
               "--vllm_gpu_memory_utilization", "0.3", *arguments]  # fmt: skip
    if not torch.cuda.is_available():
        command += ["--use_cpu", "true"]
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # of some other run, if at all
    environment = {name: value for name, value in os.environ.items() if name not in launched}
    environment["PYTHONPATH"] = str(ROOT)
    for _ in range(2):  # vLLM looks for a free port and takes it later; another process may be faster
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
        if "EADDRINUSE" not in done.stderr:
            break
    return done


@pytest.fixture
def policy_folder(make_policy, processor, tmp_path):
    """A policy with random weights, which would sample a vision token every sixty tokens, and a flow field for it."""
    from rlfr_vlm.flow import FlowSpec, build_field, save_field

    policy = make_policy(hidden_size=128, num_heads=4, num_layers=4)  # vLLM's CPU attention wants heads of 32 or more
    policy.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5))
    save_field(tmp_path / "flow", build_field(spec), spec)
    return tmp_path


@pytest.mark.parametrize(
    "kind", [pytest.param(["--eager"], id="eager"), pytest.param([], id="compiled", marks=pytest.mark.slow)]
)
def test_rlfr_and_rlvr_with_images_on_a_real_engine(policy_folder, kind):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    done = train(
        policy_folder, "rlfr,rlvr", *kind, "--dataset_limit", "64",
        "--flow_retest_every", "0",
        "--flow_soft_weight", "0.5",  # random weights are never right, and the field's update wants rows
        "--image_min_pixels", "6272",  # the trainer's own limit, unknown to the engine: four tokens or more, not two
        "--freeze_vision", "false",  # what the engine remembers of images must go with every new policy
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((policy_folder / "result.json").read_text())
    assert len(results["rlfr"]["deviation"]) == 2
    assert results["rlfr"]["moved"] == [True]  # the engine followed the first update
    for result in results.values():
        check_rollouts(result)
    check_costs(results["rlfr"]["counts"], results["rlvr"]["counts"])


def check_rollouts(result):
    assert result["rollouts"] == 2
    # The second rollout is of updated weights: a large step, and still the same log-probs but for bfloat16's rounding.
    # Prompts expanded twice gave 0.026 in the first, a head that kept its old weights 0.050 in the second.
    assert len(result["gap"]) == 2 and max(result["gap"]) < 0.015
    assert min(result["share"]) > 0.99
    assert result["tokens"] > 400 and not set(result["sampled"]) & set(result["vision"])


def check_costs(flow, plain):
    """Of two rollouts with an update each. With vLLM old log-probs are always computed, so latents cost no pass."""
    compared = 2 * 4  # rows of a prompt: row by row, and with the prompt shared
    assert flow["blocks"] == plain["blocks"] == 2 * (4 + 4) + compared  # old log-probs and loss, four blocks each
    assert flow["update_calls"] == 2  # eight rows of 32 tokens and all layers in one call
    assert flow["score_calls"] == 4  # noise has both signs, so a call takes half of the tokens
    assert flow["scored"] == flow["partners"] > 400
    assert flow["updated"] == flow["accepted_partners"] == flow["partners"]
    assert flow["kept"] == flow["accepted_positions"] * 2 * 128 * 4  # layers, D, float32
    for name in ("score_calls", "update_calls", "scored", "updated", "kept"):
        assert plain[name] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ON_VLLM if name != "Qwen2.5-VL"])
def test_rlfr_with_images_of_other_families(name, tmp_path):
    """Prompts, image tokens and log-probs agree where an image becomes wrapped tokens or rows of tiles."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from rlfr_vlm.flow import FlowSpec, build_field, save_field

    family = wide(VISION[name])
    processor = build_processor(family)
    policy = build_policy(family, processor)
    policy.save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5))
    save_field(tmp_path / "flow", build_field(spec), spec)
    done = train(tmp_path, "rlfr", "--flow_soft_weight", "0.5")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())["rlfr"]
    assert result["rollouts"] == 2 and result["moved"] == [True] and len(result["deviation"]) == 2
    assert len(result["gap"]) == 2 and max(result["gap"]) < 0.015 and min(result["share"]) > 0.99
    assert result["tokens"] > 100 and result["vision"] and not set(result["sampled"]) & set(result["vision"])


@pytest.mark.slow
def test_lora_on_a_real_engine_and_one_that_does_not_follow(policy_folder):
    """Adapters reach the engine added to the base weights, which stay as they were, bit for bit."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    lora = ("--eager", "--flow_coef", "1", "--use_peft", "true")
    done = train(policy_folder, "rlfr,stale", *lora, "--lora_r", "4", "--dtype", "bfloat16")
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((policy_folder / "result.json").read_text())
    result = results["rlfr"]
    assert result["adapters"] == 2 * 7 * 4 and result["base_kept"] and result["moved"] == [True]
    assert max(result["gap"]) < 0.03  # bfloat16 on both sides
    assert "the new weights never reached it" in results["stale"].replace("\n", " ")


def test_an_engine_that_stands_still_by_hand():
    refuse_standstill([{1: -0.5, 2: -1.0}], [{1: -0.5, 2: -1.0001}])
    with pytest.raises(UserError, match="log-probs of 1 prompts are exactly what they were"):
        refuse_standstill([{1: -0.5}], [{1: -0.5}])


def test_gap_by_hand():
    engine = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, torch.nan, 0.0]])
    trainer = torch.tensor([[-1.5, -1.0, 9.0], [-1.0, -3.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    rows = logp_gaps(engine, trainer, mask)
    assert rows.tolist() == [[1.5, 2.0, 1.0, 0.5], [0.0, 1.0, 0.0, 0.0]]
    metrics = gap_metrics(rows)
    assert metrics["rollout/logp_gap_mean"] == pytest.approx(1.5 / 3)
    assert metrics["rollout/logp_gap_max"] == 1.0
    weights = torch.tensor([0.5, 0.0]).exp()
    assert metrics["rollout/effective_share"] == pytest.approx((weights.sum() ** 2 / (2 * (weights**2).sum())).item())
    with pytest.raises(UserError, match=r"differ from the trainer's by 0\.500 on average"):
        refuse_gap(metrics, 0.4)
    refuse_gap(metrics, 0.5)
    with pytest.raises(UserError, match="by nan"):
        refuse_gap({"rollout/logp_gap_mean": float("nan")}, 0.5)


def test_other_prompts_are_refused_with_what_differs():
    refuse_other_prompts([[1, 2], [3]], [[1, 2], [3]])
    with pytest.raises(UserError, match=r"Prompt 1 has 3 tokens .* and 4 in vLLM, and differs from token 2 on"):
        refuse_other_prompts([[1], [1, 7, 2]], [[1], [1, 7, 7, 2]])


def test_image_tokens_by_hand():
    class Processor:
        class image_processor:
            merge_size = 2

    family = QwenVLFamily()
    batch = {
        "prompt_ids": torch.tensor([[9, 7, 7, 1], [7, 7, 1, 1], [1, 1, 1, 1]]),
        "completion_ids": torch.tensor([[4, 4], [7, 4], [4, 4]]),  # a tool showed row 1's second image
        "image_grid_thw": torch.tensor([[1, 2, 4], [1, 2, 2], [1, 4, 2]]),  # 2, 1 and 2 merged patches
        "num_images": [1, 2, 0],
    }
    check_image_tokens(batch, family, 7, Processor)
    batch["completion_ids"][1, 1] = 7
    with pytest.raises(UserError, match="Row 1 of the first rollout has 4 image tokens for 3 merged patches"):
        check_image_tokens(batch, family, 7, Processor)
    check_image_tokens({"prompt_ids": batch["prompt_ids"]}, family, 7, Processor)  # text only


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout": "vllm"}, "rollout is 'vllm'; choose one of hf, vllm-colocate"),
        ({"rollout_gap_limit": -1.0}, "rollout_gap_limit is -1.0"),
    ],
)
def test_settings_that_cannot_work(arguments, changes, message):
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    with pytest.raises(UserError, match=message):
        RLFRConfig(**arguments(method="rlvr", **changes))


def test_one_setting_says_who_generates(arguments):
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    args = RLFRConfig(**arguments(method="rlvr", rollout="vllm-colocate"))
    assert (args.use_vllm, args.vllm_mode) == (True, "colocate")
    assert RLFRConfig(**arguments(method="rlvr", use_vllm=True)).rollout == "vllm-colocate"
    args = RLFRConfig(**arguments(method="rlvr", rollout="vllm-server"))
    assert (args.use_vllm, args.vllm_mode) == (True, "server")
    assert RLFRConfig(**arguments(method="rlvr", use_vllm=True, vllm_mode="server")).rollout == "vllm-server"
    assert RLFRConfig(**arguments(method="rlvr")).use_vllm is False


def test_names_of_trl_and_vllm_that_the_engine_leans_on():
    """Read in TRL 1.16.0 and vLLM 0.31.0."""
    from trl.generation.vllm_generation import VLLMGeneration

    source = inspect.getsource(VLLMGeneration)
    assert "generation_kwargs.update(self.generation_kwargs)" in source
    assert "self.llm.llm_engine.model_executor.driver_worker.model_runner.model.load_weights" in source
    assert "return prompt_ids, completion_ids, logprobs, logprob_token_ids" in source
    assert list(inspect.signature(VLLMGeneration.generate).parameters)[:3] == ["self", "prompts", "images"]
    assert "self.vllm_client = VLLMClient(" in source and "self.vllm_client.init_communicator(" in source
    assert "self.vllm_client.update_named_params(self._weight_metadata, self._iter_named_params())" in source
    assert "features = self.vllm_client.image_features(" in source
    assert "prompts=ordered_set_of_prompt_ids, features=features, **sampling_params" in source
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from trl.generation.vllm_client import VLLMClient
    from vllm import LLM, LLMEngine
    from vllm.entrypoints.serve.dev.cache.api_router import router as caches
    from vllm.entrypoints.serve.dev.rpc.api_router import router as calls
    from vllm.v1.worker import worker_base
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    from rlfr_vlm.trainer.vllm.server_client import CACHES

    assert "weights_iterator" in inspect.signature(GPUModelRunner.reload_weights).parameters
    assert callable(LLM.reset_mm_cache) and callable(LLM.reset_prefix_cache)
    assert callable(LLMEngine.reset_encoder_cache)
    paths = {route.path for route in [*caches.routes, *calls.routes]}
    assert {"/collective_rpc", *(f"/{name}" for name in CACHES)} <= paths
    assert "worker_class.__bases__ = worker_class.__bases__ + (\n" in inspect.getsource(worker_base)
    client = inspect.getsource(VLLMClient)
    assert 'raise Exception(f"Request failed: {response.status_code}, {response.text}")' in client
    assert all(f"def {name}(" in client for name in ("_post", "check_server", "reset_prefix_cache", "get_server_info"))
