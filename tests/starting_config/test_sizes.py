"""Layouts and batches: what is chosen fits, by the same estimate as `rlfr plan`, and divides evenly."""

import pytest

from rlfr_vlm.cli import main
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions
from rlfr_vlm.starting_config.choose import choose_settings
from rlfr_vlm.starting_config.data import DataFacts
from rlfr_vlm.starting_config.model import look_at_model
from rlfr_vlm.starting_config.sizes import Batches, Layout, Machine, Workload, choose_batches, choose_fit
from rlfr_vlm.starting_config.yaml_text import yaml_text

# 2 x 32,768 x 1,024 weights in embeddings and head, and 4 blocks of 10.5 million: 109 million weights. In an update
# each takes 18 bytes on one GPU (weight 4, copy in bfloat16 2, gradient 4, moments 8): 1.96 GB without activations.
SIZES = {
    "vocab_size": 32768,
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 2048,
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    from transformers import LlamaConfig

    folder = tmp_path_factory.mktemp("policy")
    LlamaConfig(**SIZES).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("processes", "rows", "data", "expected"),
    [
        (8, 4, None, (4, 4, 8)),  # the recipes: 128 = 4 x 4 x 8, 128 prompts
        (1, 8, 512, (8, 16, 8)),  # 128 prompts are a quarter of the rows
        (1, 8, 511, (8, 16, 4)),  # 64 prompts
        (6, 4, 10_000, (4, 5, 8)),  # 120 responses: 128 is no multiple of 24
        (1, 8, 16, (8, 4, 1)),  # 4 prompts
        (1, 8, 1, (1, 8, 1)),  # 1 prompt, which is all there is
        (32, 8, 10_000, (4, 1, 8)),  # 8 rows x 32 processes would be 256
    ],
)
def test_batches_by_hand(processes, rows, data, expected):
    assert choose_batches(processes, rows, data) == Batches(processes, *expected)


def test_batches_are_valid_for_any_number_of_processes():
    """TRL wants rollouts that are multiples of the responses to a prompt."""
    for processes in range(1, 33):
        for rows in (1, 2, 4, 8):
            for data in (None, 40, 100, 3000):
                batches = choose_batches(processes, rows, data)
                assert batches.rows * batches.accumulation * batches.updates % 8 == 0
                assert data is None or batches.prompts <= data


def test_too_few_rows():
    with pytest.raises(UserError, match="3 rows, fewer than the 4 prompts"):
        choose_batches(4, 8, 3)


@pytest.mark.parametrize(
    ("machine", "layout"),
    [
        (Machine(1, 80.0), Layout()),
        (Machine(1, 1.5, peft=True), Layout(lora=True)),
        (Machine(8, 1.5, deepspeed=True, peft=True), Layout("zero2")),
        (Machine(8, 1.5, peft=True), Layout("fsdp2")),
    ],
)
def test_the_first_layout_that_fits(policy, machine, layout):
    fit = choose_fit(Workload(policy, 256, 64), machine)
    assert fit.layout == layout and fit.fits and fit.needed < 0.92e9 * machine.memory


def test_what_fits_nowhere_is_the_one_that_needs_least(policy):
    fit = choose_fit(Workload(policy, 256, 64), Machine(1, 0.1, peft=True))
    assert not fit.fits and fit.layout.lora and fit.rows == 1


def test_vllm_sleeps_only_if_it_has_to(policy):
    """It takes 1.05 of 3.5 GB, which leaves 2.17 of the 0.92 that are used: less than activations and 1.96 GB."""
    work = Workload(policy, 256, 64, uses_vllm=True)
    roomy, tight = (choose_fit(work, Machine(1, memory, vllm=True)) for memory in (80.0, 3.5))
    assert not roomy.layout.sleeps and tight.layout.sleeps and tight.fits


def test_methods_that_need_whole_weights_are_not_sharded(policy):
    machine = Machine(8, 1.1, deepspeed=True)
    assert choose_fit(Workload(policy, 256, 64), machine).layout.sharding == "zero3"
    assert choose_fit(Workload(policy, 256, 64, whole_weights=True), machine).layout.sharding == "zero2"


def test_memory_is_what_plan_prints(policy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--model", policy, "--method", "rlfr", "--processes", "4", "--gpu-memory", "24"]) == 0
    needed = capsys.readouterr().out.split("An update needs ")[1].split(" GB")[0]
    command = next(line for line in (tmp_path / "config.yaml").read_text().splitlines() if "accelerate" in line)
    sharding = command.split("accelerate/")[1].split(".yaml")[0].replace("ddp", "none")
    plan = ["plan", "--config", "config.yaml", "--processes", "4", "--gpu-memory", "24", "--sharding", sharding]
    assert main([*plan, "--prompt-tokens", "3000"]) == 0  # assumed where no tokenizer is
    printed = capsys.readouterr().out.split("\n  all")[1].split()[0]
    assert float(needed) > 1 and float(needed) == pytest.approx(float(printed), abs=0.06)


@pytest.mark.parametrize("has_videos", [False, True])
def test_vllm_generates_where_it_can(policy, has_videos):
    machine = Machine(2, 80.0, vllm=True, deepspeed=True)
    data = DataFacts(has_videos=has_videos)
    text = yaml_text(choose_settings("rlvr", look_at_model(policy), data, DataOptions(), machine), "c.yaml")
    lines = [line.split("  # ")[0] for line in text.splitlines()]
    assert ("rollout: vllm-colocate" in lines, "rollout: hf" in lines) == (not has_videos, has_videos)
    assert ("vllm_gpu_memory_utilization: 0.3" in lines) == (not has_videos)
