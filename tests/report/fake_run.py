"""A run folder as the trainer writes it, with numbers that tests can count by hand."""

import json
from pathlib import Path
from typing import Any

import yaml

from rlfr_vlm.trainer.records.rollout_log import pack

LAYERS = [1, 3]
CONFIG = {
    "method": "rlfr", "model_name_or_path": "small", "flow_threshold": 0.6, "flow_two_sided": True,
    "flow_accept_threshold": 0.5, "max_steps": 4, "steps_per_generation": 1, "gradient_accumulation_steps": 1,
    "num_iterations": 1, "learning_rate": 3e-6, "seed": 1, "watch": True,
}  # fmt: skip


def response(
    ids: list[int], right: bool | None, flow: list[float] | None = None, deviations: list[float] | None = None
) -> dict[str, Any]:
    """One response; both layers get the deviations, the second one doubled. Its entropies are 0, 0.25, 0.5 ..."""
    own = deviations or [1.0 + place for place in range(len(ids))]
    found: dict[str, Any] = {
        "text": "", "token_ids": ids, "finish": "stop", "kept": True, "advantage": 0.5 if right else -0.5,
        "rewards": {"accuracy": None if right is None else float(right), "format": 1.0},
        "entropy": pack([0.25 * place for place in range(len(ids))]),
    }  # fmt: skip
    if flow is not None:
        shaped = [found["advantage"] + sum(flow[place:]) for place in range(len(ids))]
        found |= {"flow_reward": pack(flow), "deviations": [pack(own), pack([2 * value for value in own])],
                  "token_advantage": pack(shaped)}  # fmt: skip
    return found


def group(step: int, row: int, responses: list[dict[str, Any]], question: str = "2+3?", **more: Any) -> dict[str, Any]:
    """One line of the rollout log."""
    return {
        "step": step, "rollout": step, "stride": 1, "row_number": row, "gold": "5", "images": [], "layers": LAYERS,
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
        "responses": responses, **more,
    }  # fmt: skip


def write_run(
    folder: Path, groups: list[dict[str, Any]], accuracies: list[float], tokenizer: Any = None, **config: Any
) -> Path:
    """Write the folder; `accuracies` are those of steps 1, 2, ..."""
    (folder / "rollouts").mkdir(parents=True)
    (folder / "rollouts" / "rank0.jsonl").write_text("".join(json.dumps(one) + "\n" for one in groups))
    lines = [{"step": step, "outcome/accuracy": value, "rewards/accuracy/mean": value, "rewards/format/mean": 1.0,
              "entropy": 1.0 / step, "step_time": 2.0, "seconds/rollout": 1.5, "flow/deviation_correct": 1.0,
              "flow/deviation_wrong": 1.5} for step, value in enumerate(accuracies, start=1)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | config))
    record = {"started": "2026-01-02T03:04:05+0000", "command": ["rlfr", "train", "--config", "x.yaml"],
              "data": {"name": "digits", "split": "train", "rows": 4096}, "versions": {"torch": "2.13.0"},
              "hardware": {"gpus": ["H"] * 8, "cpus": 2, "memory_gb": 24}, "processes": 8}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder
