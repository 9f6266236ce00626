"""Write a run folder in the format of the trainer, with numbers from which tests derive their expected values."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rlfr_vlm.files import JsonObject
from rlfr_vlm.trainer.records.rollout_log import pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

LAYERS = [1, 3]
CONFIG = {
    "method": "rlfr",
    "model_name_or_path": "small",
    "flow_threshold": 0.6,
    "flow_two_sided": True,
    "flow_accept_threshold": 0.5,
    "max_steps": 4,
    "steps_per_generation": 1,
    "gradient_accumulation_steps": 1,
    "num_iterations": 1,
    "learning_rate": 3e-6,
    "seed": 1,
    "watch": True,
}


def response(
    ids: list[int], right: bool | None, flow: list[float] | None = None, deviations: list[float] | None = None
) -> JsonObject:
    """One logged response; the second layer has twice the deviations of the first; entropies are 0, 0.25, 0.5 ..."""
    first_layer = deviations or [1.0 + index for index in range(len(ids))]
    line: JsonObject = {
        "text": "",
        "token_ids": ids,
        "finish": "stop",
        "kept": True,
        "advantage": 0.5 if right else -0.5,
        "rewards": {"accuracy": None if right is None else float(right), "format": 1.0},
        "entropy": pack([0.25 * index for index in range(len(ids))]),
    }
    if flow is not None:
        shaped = [line["advantage"] + sum(flow[index:]) for index in range(len(ids))]
        line |= {
            "flow_reward": pack(flow),
            "deviations": [pack(first_layer), pack([2 * value for value in first_layer])],
            "token_advantage": pack(shaped),
        }
    return line


def group(step: int, row: int, responses: list[JsonObject], question: str = "2+3?", **extra: object) -> JsonObject:
    """One line of the rollout log."""
    return {
        "step": step,
        "rollout": step,
        "stride": 1,
        "row_number": row,
        "gold": "5",
        "images": [],
        "layers": LAYERS,
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
        "responses": responses,
        **extra,
    }


def write_run(
    folder: Path,
    groups: list[JsonObject],
    accuracies: list[float],
    tokenizer: "PreTrainedTokenizerBase | ProcessorMixin | None" = None,
    **config: object,
) -> Path:
    """Write a run folder; `accuracies` are the values of steps 1, 2, ..."""
    (folder / "rollouts").mkdir(parents=True)
    (folder / "rollouts" / "rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in groups))
    lines = [
        {
            "step": step,
            "outcome/accuracy": value,
            "rewards/accuracy/mean": value,
            "rewards/format/mean": 1.0,
            "entropy": 1.0 / step,
            "step_time": 2.0,
            "seconds/rollout": 1.5,
            "flow/deviation_correct": 1.0,
            "flow/deviation_wrong": 1.5,
        }
        for step, value in enumerate(accuracies, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
    record = {
        "started": "2026-01-02T03:04:05+0000",
        "command": ["rlfr", "train", "--config", "x.yaml"],
        "data": {"name": "digits", "split": "train", "rows": 4096},
        "versions": {"torch": "2.13.0"},
        "hardware": {"gpus": ["H"] * 8, "cpus": 2, "memory_gb": 24},
        "processes": 8,
    }
    (folder / "run.json").write_text(json.dumps(record))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder
