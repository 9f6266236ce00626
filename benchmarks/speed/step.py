"""Seconds of a training step: TRL's GRPOTrainer, our rlvr and our rlfr, on the same policy, prompts and seeds.

    .venv/bin/python benchmarks/speed/step.py [--size small|3b|7b] [--quick] [--rounds 5] [--json FILE]

The trainers take turns, so that a noisy machine disturbs all alike. `small` is the quick start's policy, on a CPU;
3b and 7b are Qwen2.5-VL with random weights and need a GPU (see workloads.py).
"""

import argparse
import gc
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from measuring import Patience, add_options, now, same_round_ratio, spread, table, write_results
from transformers import TrainerCallback

if TYPE_CHECKING:
    from workloads import Workload

KINDS = ("trl", "rlvr", "rlfr", "rlfr, no update")
PARTS = ("generate", "old log-probs", "flow score", "loss", "flow update", "other")


def build(kind: str, folder: str, work: "Workload", updates: int) -> Any:
    """A trainer for `updates` updates."""
    from trl import GRPOConfig, GRPOTrainer

    from rlfr_vlm.flow import FlowSpec, build_field
    from rlfr_vlm.models.vision import freeze_vision_tower
    from rlfr_vlm.trainer.records.callbacks import quiet
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    policy = work.policy()
    arguments = {**work.arguments, "output_dir": folder, "max_steps": updates, "report_to": []}
    common = {"reward_funcs": [work.reward], "train_dataset": work.rows, "processing_class": work.processor}
    if kind == "trl":
        freeze_vision_tower(policy)  # as ours does, so that both train the same weights
        trainer = GRPOTrainer(policy, args=GRPOConfig(**arguments, loss_type="grpo"), **common)
    else:
        method = "rlvr" if kind == "rlvr" else "rlfr"
        spec = FlowSpec.for_policy(policy.config.get_text_config(), work.name, work.depth, (0.25, 0.5, 0.75))
        flow = None if method == "rlvr" else (build_field(spec), spec)
        args = RLFRConfig(**arguments, method=method, flow_update=kind == "rlfr")
        trainer = RLFRTrainer(policy, args=args, flow=flow, **common)
    quiet(trainer)
    return trainer


def watch(trainer: Any) -> Mapping[str, float]:
    """Seconds that fill while it trains: of methods that TRL's trainer has too."""
    import torch

    seconds: defaultdict[str, float] = defaultdict(float)

    def watched(method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def run(*arguments: Any, **settings: Any) -> Any:
            if part == "old log-probs" and torch.is_grad_enabled():  # a pass of the loss
                return method(*arguments, **settings)
            start = now()
            result = method(*arguments, **settings)
            seconds[part] += now() - start
            return result

        return run

    for name, part in {
        "_generate": "generate", "_get_per_token_logps_and_entropies": "old log-probs",
        "_generate_and_score_completions": "rollout", "training_step": "step",
    }.items():  # fmt: skip
        setattr(trainer, name, watched(getattr(trainer, name), part))
    return seconds


class Span(TrainerCallback):
    """Seconds from the first step's beginning to the last one's end: what a trainer does before costs a run once."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begun = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds = now() - self.begun


def train(trainer: Any, updates: int) -> dict[str, float]:
    """Seconds per update: all, and of each part."""
    watched, span = watch(trainer), Span()
    trainer.add_callback(span)
    trainer.train()
    total = span.seconds / updates
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    score, update = (
        sum(entry.get(f"seconds/{part}", 0.0) for entry in logged) / updates for part in ("flow_score", "flow_update")
    )
    generate, old, rollout, step = (
        watched[part] / updates for part in ("generate", "old log-probs", "rollout", "step")
    )
    # Latents are scored inside the pass of the old log-probs, and the field's gradients made inside the policy's step.
    parts = {"generate": generate, "old log-probs": old - score, "flow score": score, "loss": step - rollout - update,
             "flow update": update}  # fmt: skip
    return {"total": total, **parts, "other": total - sum(parts.values())}


def measure(work: "Workload", rounds: int, updates: int, patience: Patience) -> dict[str, Any]:
    """Seconds per update of each kind, a number per round, and medians of the parts; the first round is dropped."""

    def one(kind: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            seconds = train(build(kind, folder, work, updates), updates)
        release()
        return seconds

    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds + 1):
        for kind in KINDS:
            seconds = patience.run(lambda kind=kind: one(kind))[0] if number else one(kind)
            if number:
                found[kind].append(seconds)
            print(f"round {number} {kind}: {seconds['total']:.3f} s{'' if number else ' (not counted)'}", flush=True)
    totals = {kind: [own["total"] for own in rows] for kind, rows in found.items()}
    return {
        "size": work.name, "updates": updates, "seconds_per_update": totals,
        "parts": {kind: {part: statistics.median(own[part] for own in rows) for part in PARTS}
                  for kind, rows in found.items()},
        "over_trl": {kind: same_round_ratio(values, totals["trl"]) for kind, values in totals.items()},
    }  # fmt: skip


def release() -> None:
    """Give the last trainer's memory back before the next one is built."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def report(result: Mapping[str, Any]) -> str:
    """The tables of a result."""
    seconds, parts = result["seconds_per_update"], result["parts"]
    rows = [(kind, *(f"{value:.3f}" for value in spread(values).values()), f"{result['over_trl'][kind]:.2f}",
             f"{min(values) / min(seconds['trl']):.2f}") for kind, values in seconds.items()]  # fmt: skip
    split = [(kind, *(f"{own[part]:.3f}" for part in PARTS)) for kind, own in parts.items()]
    head = ("step, s", "min", "median", "max", "over TRL, same round", "over TRL, minima")
    return table(head, rows) + "\n\n" + table(("part of a step, s", *PARTS), split)


def main() -> None:
    from workloads import SIZES, choose

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, help="(default: 5, with --quick 2)")
    parser.add_argument("--updates", type=int, default=4, help="of each round and kind (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, of a policy that is trained in seconds")
    add_options(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)

    import torch

    from rlfr_vlm.library_output import calm

    if options.size != "small" and not torch.cuda.is_available():
        sys.exit(f"step: size {options.size} needs a CUDA GPU, and there is none here; --size small runs on a CPU")
    calm()
    patience = Patience(options.patience)
    result = measure(choose(options.size, options.quick), options.rounds, options.updates, patience)
    print("\n" + report(result))
    write_results(options.json, "step" if options.size == "small" else f"step_{options.size}", result, patience)


if __name__ == "__main__":
    main()
