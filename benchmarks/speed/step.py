"""Seconds of a training step: TRL's GRPOTrainer, our rlvr and our rlfr, on the same policy, prompts and seeds.

The three trainers take turns, so that a noisy machine disturbs all alike. Prints a table and, with --json, writes the
numbers with the machine and the versions.

    python benchmarks/speed/step.py [--rounds N] [--json FILE]
"""

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from importlib.metadata import version
from typing import Any

KINDS = ("trl", "rlvr", "rlfr")
TOKENS_PER_SCORE = 1000


def build(kind: str, folder: str, policy_folder: str, updates: int) -> Any:
    """A trainer of the quick start's sizes for `updates` updates."""
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
    from trl import GRPOConfig, GRPOTrainer

    from rlfr_vlm.data.load import load_rows
    from rlfr_vlm.flow import FlowSpec, build_field
    from rlfr_vlm.quickstart.recipe import QuickstartRecipe
    from rlfr_vlm.rewards import accuracy
    from rlfr_vlm.trainer.callbacks import quiet
    from rlfr_vlm.trainer.config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer
    from rlfr_vlm.vision import freeze_vision_tower

    policy = Qwen2_5_VLForConditionalGeneration.from_pretrained(policy_folder)
    arguments = QuickstartRecipe().rl_arguments(folder, "rlfr" if kind == "rlfr" else "rlvr", seed=1)
    arguments |= {"max_steps": updates, "report_to": []}
    common: dict[str, Any] = {
        "reward_funcs": [accuracy],
        "train_dataset": load_rows("digits", limit=1024, seed=1),
        "processing_class": AutoProcessor.from_pretrained(policy_folder),
    }
    if kind == "trl":
        arguments.pop("method")
        freeze_vision_tower(policy)  # as ours does, so that both train the same weights
        trainer = GRPOTrainer(policy, args=GRPOConfig(**arguments, loss_type="grpo"), **common)
    else:
        spec = FlowSpec.for_policy(policy.config.get_text_config(), "small", 4, (0.25, 0.5, 0.75))
        flow = (build_field(spec), spec) if kind == "rlfr" else None
        trainer = RLFRTrainer(policy, args=RLFRConfig(**arguments), flow=flow, **common)
    quiet(trainer)
    return trainer


def measure_steps(policy_folder: str, rounds: int, updates: int) -> dict[str, list[float]]:
    """Seconds per update, one number per round and kind; the first round warms up and is dropped."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for round_number in range(rounds + 1):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                trainer = build(kind, folder, policy_folder, updates)
                start = time.perf_counter()
                trainer.train()
                elapsed = (time.perf_counter() - start) / updates
            if round_number:
                seconds[kind].append(elapsed)
                print(f"round {round_number} {kind}: {elapsed:.3f} s", flush=True)
    return seconds


def measure_scoring(rounds: int) -> list[float]:
    """Seconds to score 1,000 response tokens at three layers with the quick start's field."""
    import torch

    from rlfr_vlm.flow import FlowSpec, build_field, velocity_deviation

    spec = FlowSpec(128, 4, 4, (0.25, 0.5, 0.75), (1, 2, 3), context_mode="identity")
    field = build_field(spec)
    inputs = spec.inputs(torch.randn(3, 10, TOKENS_PER_SCORE // 10, 128), torch.ones(10, TOKENS_PER_SCORE // 10), 100)
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        velocity_deviation(field, inputs, [0.8])
        times.append(time.perf_counter() - start)
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=6, help="updates per round and kind")
    parser.add_argument("--json", help="also write the numbers here")
    options = parser.parse_args()

    from rlfr_vlm.quickstart.recipe import QuickstartRecipe
    from rlfr_vlm.quickstart.warm_start import cached_policy
    from rlfr_vlm.terminal import calm

    calm()
    policy_folder = str(cached_policy(QuickstartRecipe().warm_start)[0])
    seconds = measure_steps(policy_folder, options.rounds, options.updates)
    scoring = measure_scoring(options.rounds)
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    print("\n| step | min | median | max | over TRL, same round |\n|---|---|---|---|---|")
    for kind, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["trl"], strict=True))
        print(f"| {kind} | {min(values):.3f} s | {medians[kind]:.3f} s | {max(values):.3f} s | {ratio:.2f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"\nflow scoring, 1,000 response tokens: {statistics.median(scoring) * 1000:.1f} ms; peak memory {peak:.0f} MB"
    )
    if options.json:
        result = {
            "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
            "versions": {name: version(name) for name in ("torch", "transformers", "trl", "rlfr-vlm")},
            "seconds_per_update": seconds,
            "seconds_per_1000_scored_tokens": scoring,
            "peak_rss_mb": round(peak),
        }
        with open(options.json, "w", encoding="utf-8") as stream:
            json.dump(result, stream, indent=2)


if __name__ == "__main__":
    main()
