"""The memory that `rlfr plan` estimates against what the tensors of two real updates take at most."""

import gc
import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlfr_vlm.plan import MemorySettings, estimate_memory

pytestmark = pytest.mark.gpu
SPEED = Path(__file__).resolve().parents[2] / "benchmarks" / "speed"
SIZES = {  # weights dominate, as they do in real runs
    "cpu": {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024,
            "vocab_size": 4096, "prompt": 40, "response": 8, "image": 2},
    "cuda": {"hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 8, "intermediate_size": 4096,
             "vocab_size": 65536, "prompt": 256, "response": 128, "image": 12},
}  # fmt: skip


@pytest.fixture
def script(monkeypatch):
    """Import a speed script by name, with its folder on sys.path as when it is run."""
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module


def peak_of(work, device, script):
    """Largest number of bytes of live tensors while `work()` ran, those before it included on a GPU."""
    if device.type == "cpu":
        return script("measuring").peak_bytes(work)
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


def test_the_plan_is_within_a_fifth_of_the_peak_of_two_updates(device, script, tmp_path, record_property):
    """The second update has the optimiser's moments. Weights are in float32; a GPU computes in bfloat16."""
    workloads, step = script("workloads"), script("step")
    shape = workloads.Shape(
        num_key_value_heads=SIZES[device.type]["num_attention_heads"], tied=False, field_depth=1,
        vision=workloads.VisionShape(1, 32, 64, 2, (0,)), **SIZES[device.type],
    )  # fmt: skip
    work = workloads.large("memory", shape, device.type)
    changes = {
        "optim": "adamw_torch", "gradient_checkpointing": False, "share_prefix": "false",
        "gradient_accumulation_steps": 1, "steps_per_generation": 4, "per_device_train_batch_size": 2,
    }  # fmt: skip
    work = replace(work, policy=lambda make=work.policy: make().float(), arguments=work.arguments | changes)
    kept = []

    def two_updates():
        trainer = step.build("rlfr", str(tmp_path), work, 2)
        kept.append(trainer)
        trainer.train()

    measured = peak_of(two_updates, device, script)
    trainer = kept.pop()
    settings = MemorySettings(
        bf16=device.type == "cuda", checkpointing=False, rows=2, positions=shape.prompt + shape.response,
        response=shape.response, flow=trainer.flow.spec,
    )  # fmt: skip
    estimate = estimate_memory(trainer.model, settings)
    for name, size in {**vars(estimate), "total": estimate.total, "measured peak": measured}.items():
        record_property(f"{name}, MB", round(size / 1e6, 1))
    assert trainer.state.global_step == 2
    assert measured == pytest.approx(estimate.total, rel=0.2)
