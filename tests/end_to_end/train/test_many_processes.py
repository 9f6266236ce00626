"""Two real processes under DDP, FSDP2, ZeRO-2 and ZeRO-3 train as one process does with the same global batch.

The processes share the prompts of their groups; the one process runs row by row, so that sharing is compared as well.
One rank's rows are all text in every step, the other's have images, and they change places.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from tests.end_to_end.train import parity_run
from tests.trainer.launching import fsdp, launch, options, torchrun, zero

SCRIPT = Path(__file__).with_name("parity_run.py")
REWARD = """
def even(completion_ids, **kwargs):
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]
"""
SETTINGS = {
    "bf16": "false", "report_to": "none", "save_strategy": "no", "learning_rate": 0.3, "lr_scheduler_type": "constant",
    "optim": "sgd", "max_steps": 4, "num_generations": 4, "max_completion_length": 8, "flow_accept": "entropy",
    "flow_coef": 0.1, "flow_learning_rate": 1e-3, "shuffle_dataset": "false", "num_train_epochs": 4,
    "share_prefix": "true",
}  # fmt: skip

PIECES = {"flow_accept": "correct", "micro_batch_tokens": 30}  # a quantile of entropies needs whole micro-batches


@pytest.fixture(scope="module")
def work(tmp_path_factory, processor):
    """A policy, a field for it, and rows of which every second prompt has no image."""
    from rlfr_vlm.data.digits import digit_rows
    from rlfr_vlm.flow import FlowSpec, build_field, save_field
    from rlfr_vlm.quickstart.small_policy import PolicySize, build_policy

    folder = tmp_path_factory.mktemp("parity")
    # large enough for ZeRO-3, which leaves weights of fewer than 100,000 numbers whole on every process
    size = PolicySize(hidden_size=384, num_layers=4, num_heads=4, intermediate_size=384, vision_hidden_size=96)
    policy = build_policy(processor, size, 0)
    policy.save_pretrained(folder / "policy")
    processor.save_pretrained(folder / "policy")
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5))
    torch.manual_seed(5)
    save_field(folder / "flow", build_field(spec), spec)
    (folder / "mine.py").write_text(REWARD)
    lines = []
    for number, row in enumerate(digit_rows("train", 8, 0)):
        row["images"][0].save(folder / f"{number}.png")
        seen = number % 4 in (0, 3)  # image, text, text, image: the ranks change places
        lines.append({"prompt": row["prompt"] if seen else "sum?", "answer": row["answer"],
                      "images": [f"{number}.png"] if seen else []})  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def arguments(work: Path, name: str, processes: int, **changes: object) -> list[str]:
    """Arguments of the run `name`, whose global batch has eight rows."""
    return options(SETTINGS | {
        "model_name_or_path": work / "policy", "dataset_name": work / "rows.jsonl", "flow_path": work / "flow",
        "output_dir": work / f"{name}-run", "per_device_train_batch_size": 8 // processes,
        "rewards": f"{work}/mine.py:even",
    } | changes)  # fmt: skip


def train(work: Path, launcher: list[str], runs: dict[str, dict[str, object]]) -> Path:
    """Train on two processes, one run after the other: starting the processes takes longer than a run."""
    described = [
        {"folder": str(work / name), "arguments": arguments(work, name, 2, **changes),
         "environment": fsdp() if name.startswith("fsdp2") else {}}
        for name, changes in runs.items()
    ]  # fmt: skip
    file = work / f"{'-'.join(runs)}.json"
    file.write_text(json.dumps(described))
    launch(launcher, [str(SCRIPT), str(file)])
    return work


@pytest.fixture(scope="module")
def alone(work):
    """The folder of the run in one process, which is this one."""
    parity_run.train(work / "alone", arguments(work, "alone", 1, use_cpu="true", share_prefix="false"))
    return work / "alone"


@pytest.fixture(scope="module")
def alone_and_whole(work):
    """The folder of the run in one process that is compared with runs in pieces."""
    changes = {"use_cpu": "true", "share_prefix": "false", "flow_accept": "correct"}
    parity_run.train(work / "whole", arguments(work, "whole", 1, **changes))
    return work / "whole"


@pytest.fixture(scope="module")
def torch_runs(work):
    """The folder that holds `ddp` and `fsdp2`, and both in pieces."""
    runs = {"ddp": {}, "ddp-pieces": PIECES, "fsdp2": {}, "fsdp2-pieces": PIECES}
    return train(work, torchrun(), {name: {"use_cpu": "true"} | changes for name, changes in runs.items()})


@pytest.fixture(scope="module")
def zero2_runs(work):
    """The folder that holds `zero2`, the same in pieces, and two steps in `bf16`."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    bfloat16 = {"ddp_backend": "gloo", "bf16": "true", "max_steps": 2}
    gloo = {"ddp_backend": "gloo"}
    return train(work, zero(2), {"zero2": gloo, "zero2-pieces": gloo | PIECES, "bf16": bfloat16})


@pytest.fixture(scope="module")
def zero3_runs(work):
    """The folder that holds `zero3`, and the same in pieces."""
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    gloo = {"ddp_backend": "gloo"}
    return train(work, zero(3), {"zero3": gloo, "zero3-pieces": gloo | PIECES})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return sum((one[name] - other[name]).square().sum().item() for name in one) ** 0.5


def check_same(work: Path, alone: Path, together: Path) -> None:
    """Policy and field went the same way, to a thousandth of the way they went; metrics are the global ones."""
    start, lone, joint = (weights(folder) for folder in (work / "policy", alone, together))
    way = distance(start, lone)
    assert way > 1e-2
    assert distance(lone, joint) < 1e-3 * way
    field = [load_file(folder / "flow.safetensors") for folder in
             (work / "flow", alone / "field-0", together / "field-0", together / "field-1")]  # fmt: skip
    assert distance(field[0], field[1]) > 1e-2
    assert distance(field[1], field[2]) < 1e-3 * distance(field[0], field[1])
    assert distance(field[2], field[3]) == 0  # the same on all ranks, bit for bit
    logs = [json.loads((folder / "log.json").read_text()) for folder in (alone, together)]
    assert {"outcome/mean", "flow/loss", "flow/deviation_wrong"} <= set(logs[0][0])
    added = set(logs[1][0]) - set(logs[0][0]) - {"micro_batch_pieces"}
    assert added == {"share_prefix/tokens_saved", "share_prefix/images_saved"}
    assert logs[1][0]["share_prefix/tokens_saved"] > 0.1
    for one, other in zip(*logs, strict=True):
        for name in (
            "outcome/mean",
            "flow/loss",
            "flow/deviation_wrong",
            "flow/share_rewarded",
            "completions/mean_length",
        ):
            if name in one:
                assert other[name] == pytest.approx(one[name], rel=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize(("how", "kind"), [("ddp", "MULTI_CPU"), ("fsdp2", "FSDP")])
def test_ddp_and_fsdp_train_as_one_process(torch_runs, alone, how, kind):
    check_same(torch_runs, alone, torch_runs / how)
    assert (torch_runs / how / "distributed_type").read_text() == kind


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_trains_as_one_process(request, alone, stage):
    work = request.getfixturevalue(f"zero{stage}_runs")
    check_same(work, alone, work / f"zero{stage}")
    assert (work / f"zero{stage}" / "distributed_type").read_text() == "DEEPSPEED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "runs"),
    [("ddp", "torch_runs"), ("fsdp2", "torch_runs"), ("zero2", "zero2_runs"), ("zero3", "zero3_runs")],
)
def test_micro_batches_in_pieces_train_as_whole_ones(request, alone_and_whole, how, runs):
    work = request.getfixturevalue(runs)
    check_same(work, alone_and_whole, work / f"{how}-pieces")
    log = json.loads((work / f"{how}-pieces" / "log.json").read_text())
    assert all(entry["micro_batch_pieces"] > 1 for entry in log if "loss" in entry)


@pytest.mark.slow
def test_bfloat16_under_deepspeed_with_the_ban(zero2_runs):
    """DeepSpeed casts weights to bfloat16; the ban, which is no weight, must follow. Images, text and flow rewards."""
    log = json.loads((zero2_runs / "bf16" / "log.json").read_text())
    assert sum("loss" in entry for entry in log) == 2
