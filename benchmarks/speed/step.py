"""Seconds of a training step: TRL's GRPOTrainer, our rlvr and our rlfr, on the same policy, prompts and seeds.

    .venv/bin/python benchmarks/speed/step.py [--quick] [--rounds 5] [--json FILE]

The trainers take turns, so that a noisy machine disturbs all alike. Of ours the seconds of each part are shown too.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from measuring import now, same_round_ratio, spread, table, write_results

KINDS = ("trl", "rlvr", "rlfr", "rlfr, no update")
PARTS = ("generate", "reward", "flow_forward", "flow_score", "loss", "flow_update")


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
    arguments = QuickstartRecipe().rl_arguments(folder, "rlfr" if kind.startswith("rlfr") else "rlvr", seed=1)
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
        flow = (build_field(spec), spec) if kind.startswith("rlfr") else None
        arguments["flow_update"] = kind == "rlfr"
        trainer = RLFRTrainer(policy, args=RLFRConfig(**arguments), flow=flow, **common)
    quiet(trainer)
    return trainer


def measure(
    policy_folder: str, rounds: int, updates: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds per update, one number per round and kind, and medians of the parts; the first round is dropped."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    parts: dict[str, dict[str, list[float]]] = {kind: {part: [] for part in PARTS} for kind in KINDS}
    for number in range(rounds + 1):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                trainer = build(kind, folder, policy_folder, updates)
                start = now()
                trainer.train()
                elapsed = (now() - start) / updates
            if number:
                seconds[kind].append(elapsed)
                for part in PARTS:
                    logged = [
                        entry.get(f"seconds/{part}", 0.0) for entry in trainer.state.log_history if "loss" in entry
                    ]
                    parts[kind][part].append(sum(logged) / updates)
                print(f"round {number} {kind}: {elapsed:.3f} s", flush=True)
    return seconds, {kind: {part: statistics.median(v) for part, v in own.items()} for kind, own in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=6, help="updates per round and kind")
    parser.add_argument("--quick", action="store_true", help="two rounds of four updates")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.updates = 2, 4

    from rlfr_vlm.quickstart.recipe import QuickstartRecipe
    from rlfr_vlm.quickstart.warm_start import cached_policy
    from rlfr_vlm.terminal import calm

    calm()
    policy_folder = str(cached_policy(QuickstartRecipe().warm_start)[0])
    seconds, parts = measure(policy_folder, options.rounds, options.updates)
    ratios = {kind: same_round_ratio(values, seconds["trl"]) for kind, values in seconds.items()}
    rows = [(kind, *(f"{value:.3f}" for value in spread(values).values()), f"{ratios[kind]:.2f}",
             f"{min(values) / min(seconds['trl']):.2f}") for kind, values in seconds.items()]  # fmt: skip
    print("\n" + table(("step, s", "min", "median", "max", "over TRL, same round", "over TRL, minima"), rows))
    print("\n" + table(("seconds of a part", *PARTS), [
        (kind, *(f"{parts[kind][part]:.3f}" for part in PARTS)) for kind in KINDS if kind != "trl"]))  # fmt: skip
    write_results(options.json, "step", {"updates": options.updates, "seconds_per_update": seconds, "parts": parts,
                                         "over_trl": ratios})  # fmt: skip


if __name__ == "__main__":
    main()
