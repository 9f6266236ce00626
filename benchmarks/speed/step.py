"""Seconds of a training step of TRL's GRPOTrainer, our rlvr and our rlfr on the same policy, prompts and seeds.

    .venv/bin/python benchmarks/speed/step.py [--size small|3b|7b] [--quick] [--rounds 5] [--json FILE]

The trainers run in turn, so that noise affects all equally. `small` is the quick start's policy on a CPU; 3b and 7b
are Qwen2.5-VL with random weights and need a GPU (see workloads.py). If the GPU's memory does not hold one of them, it
is measured with fewer decoder blocks, and the result says so.
"""

import argparse
import gc
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from measuring import Patience, add_options, now, same_round_ratio, spread, table, write_results
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from trl import GRPOTrainer
    from workloads import Workload

    from rlfr_vlm.files import JsonObject

KINDS = ("trl", "rlvr", "rlfr", "rlfr, no update")
PARTS = ("generate", "old log-probs", "flow score", "loss", "flow update", "other")


def build(kind: str, folder: str, work: "Workload", updates: int) -> "GRPOTrainer":
    """Build the trainer of a kind for `updates` optimiser steps."""
    from trl import GRPOConfig, GRPOTrainer

    from rlfr_vlm.flow import FlowSpec, build_field
    from rlfr_vlm.models.vision import freeze_vision_tower
    from rlfr_vlm.trainer.records.default_records import drop_records
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    policy = work.policy()
    arguments = {**work.arguments, "output_dir": folder, "max_steps": updates, "report_to": []}
    common = {"reward_funcs": [work.reward], "train_dataset": work.rows, "processing_class": work.processor}
    if kind == "trl":
        freeze_vision_tower(policy)  # as our trainers do, so that all train the same weights
        trainer = GRPOTrainer(policy, args=GRPOConfig(**arguments, loss_type="grpo"), **common)
    else:
        method = "rlvr" if kind == "rlvr" else "rlfr"
        spec = FlowSpec.for_policy(policy.config.get_text_config(), work.name, work.depth, (0.25, 0.5, 0.75))
        flow = None if method == "rlvr" else (build_field(spec), spec)
        args = RLFRConfig(**arguments, method=method, flow_update=kind == "rlfr")
        trainer = RLFRTrainer(policy, args=args, flow=flow, **common)
    drop_records(trainer)
    return trainer


# Methods that all trainers have -> part of a step that they take.
TIMED_METHODS = {
    "_generate": "generate",
    "_get_per_token_logps_and_entropies": "old log-probs",
    "_generate_and_score_completions": "rollout",
    "training_step": "step",
}


def time_methods(trainer: "GRPOTrainer") -> Mapping[str, float]:
    """Time the methods in `TIMED_METHODS`; returns part -> seconds, updated while the trainer runs."""
    import torch

    seconds: defaultdict[str, float] = defaultdict(float)

    def timed(method: Callable[..., object], part: str) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            if part == "old log-probs" and torch.is_grad_enabled():  # a forward pass of the loss
                return method(*args, **kwargs)
            start = now()
            result = method(*args, **kwargs)
            seconds[part] += now() - start
            return result

        return run

    for name, part in TIMED_METHODS.items():
        setattr(trainer, name, timed(getattr(trainer, name), part))
    return seconds


class StepTime(TrainerCallback):
    """Seconds from the start of the first step to the end of the last one, without the setup of the trainer."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.start = now()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.seconds = now() - self.start


def train(trainer: "GRPOTrainer", updates: int) -> dict[str, float]:
    """Train and return the seconds per update: in total and of each part."""
    method_seconds, step_time = time_methods(trainer), StepTime()
    trainer.add_callback(step_time)
    trainer.train()
    total = step_time.seconds / updates
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    score, update = (
        sum(entry.get(f"seconds/{part}", 0.0) for entry in logged) / updates for part in ("flow_score", "flow_update")
    )
    generate, old, rollout, step = (
        method_seconds[part] / updates for part in ("generate", "old log-probs", "rollout", "step")
    )
    # The pass for the old log-probs includes scoring, and the policy's step includes the gradients of the field.
    parts = {
        "generate": generate,
        "old log-probs": old - score,
        "flow score": score,
        "loss": step - rollout - update,
        "flow update": update,
    }
    return {"total": total, **parts, "other": total - sum(parts.values())}


def measure(
    work: "Workload",
    rounds: int,
    updates: int,
    patience: Patience,
    kinds: Sequence[str] = KINDS,
    stop: Callable[[float], bool] = lambda seconds: False,
    after_round: Callable[["JsonObject"], None] = lambda result: None,
) -> "JsonObject":
    """Measure the seconds per update of each kind in each round, and the medians of the parts.

    The first round is dropped.

    Args:
        kinds: TRL's and others.
        stop: given the seconds of the last round, whether there is no time for another one.
        after_round: takes the result of the rounds so far.
    """

    def run(kind: str) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            seconds = train(build(kind, folder, work, updates), updates)
        release()
        return seconds

    rounds_of: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    peaks: dict[str, int] = {}
    for number in range(rounds + 1):
        began = now()
        for kind in kinds:
            reset_peak()
            seconds = patience.run(lambda kind=kind: run(kind))[0] if number else run(kind)
            if (peak := peak_memory()) is not None:
                peaks[kind] = max(peak, peaks.get(kind, 0))
            if number:
                rounds_of[kind].append(seconds)
            print(f"round {number} {kind}: {seconds['total']:.3f} s{'' if number else ' (not counted)'}", flush=True)
        if number:
            after_round(summary_of(work.name, updates, rounds_of, peaks))
            if stop(now() - began):
                break
    return summary_of(work.name, updates, rounds_of, peaks)


def summary_of(
    size: str, updates: int, rounds_of: Mapping[str, Sequence[Mapping[str, float]]], peaks: Mapping[str, int]
) -> "JsonObject":
    """What the results file says of the rounds so far."""
    totals = {kind: [seconds["total"] for seconds in rows] for kind, rows in rounds_of.items()}
    parts = {
        kind: {part: statistics.median(seconds[part] for seconds in rows) for part in PARTS}
        for kind, rows in rounds_of.items()
    }
    return {
        "size": size,
        "updates": updates,
        "seconds_per_update": totals,
        "parts": parts,
        "over_trl": {kind: same_round_ratio(values, totals["trl"]) for kind, values in totals.items()},
        **({"peak_bytes": dict(peaks)} if peaks else {}),
    }


def reset_peak() -> None:
    """Begin to look for the largest memory of the GPU's tensors."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int | None:
    """Largest number of bytes of the GPU's tensors since `reset_peak`; None without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def fewer_layers(run: Callable[[int], "JsonObject"], layers: int) -> "JsonObject":
    """Return `run(layers)`; while the GPU's memory does not suffice, with three quarters of the layers.

    The result has the layers with which it ran, and the model's own number.
    """
    import torch

    tried = layers
    while True:
        try:
            return {**run(tried), "layers": tried, "layers_of_model": layers}
        except torch.OutOfMemoryError as error:
            if tried == 1:
                raise
            message = str(error).splitlines()[0]
        print(f"{tried} of {layers} decoder blocks do not fit: {message}", flush=True)
        tried = max(1, tried * 3 // 4)
        release()


def release() -> None:
    """Free the memory of the last trainer before the next one is built."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def report(result: "JsonObject") -> str:
    """Format the tables of a result."""
    seconds, parts = result["seconds_per_update"], result["parts"]
    rows = []
    for kind, values in seconds.items():
        ratio, ratio_of_minima = result["over_trl"][kind], min(values) / min(seconds["trl"])
        numbers = (f"{value:.3f}" for value in spread(values).values())
        rows.append((kind, *numbers, f"{ratio:.2f}", f"{ratio_of_minima:.2f}"))
    part_rows = [(kind, *(f"{medians[part]:.3f}" for part in PARTS)) for kind, medians in parts.items()]
    head = ("step, s", "min", "median", "max", "over TRL, same round", "over TRL, minima")
    return table(head, rows) + "\n\n" + table(("part of a step, s", *PARTS), part_rows)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    from workloads import SIZES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--rounds", type=int, help="(default: 5, with --quick 2)")
    parser.add_argument(
        "--updates", type=int, default=4, help="optimiser steps per round and kind (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, with a policy that is warm-started in seconds"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what is measured; trl must be there")
    parser.add_argument("--response", type=int, help="response tokens of a large size (default: its own)")
    parser.add_argument("--seconds", type=float, help="begin no round that would end after so many seconds")
    add_options(parser)
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    if "trl" not in options.kinds:
        sys.exit("step: --kinds has no trl, which the others are compared with")
    return options


def main() -> None:
    began = now()
    options = parse()

    import torch
    from workloads import GPU_SIZES, SHAPES, build_workload

    from rlfr_vlm.library_output import silence_libraries

    if options.size in GPU_SIZES and not torch.cuda.is_available():
        sys.exit(f"step: size {options.size} needs a CUDA GPU, and there is none here; --size small runs on a CPU")
    silence_libraries()
    patience = Patience(options.patience)
    name = "step" if options.size == "small" else f"step_{options.size}"

    def run(layers: int | None = None) -> "JsonObject":
        return measure(
            build_workload(options.size, options.quick, layers, options.response),
            options.rounds,
            options.updates,
            patience,
            options.kinds,
            stop=lambda seconds: options.seconds is not None and now() - began + seconds > options.seconds,
            after_round=lambda result: write_results(
                options.json, name, result | ({} if layers is None else {"layers": layers}), patience
            ),
        )

    shape = SHAPES.get(options.size)
    result = run() if shape is None else fewer_layers(run, shape.num_hidden_layers)
    print("\n" + report(result))
    write_results(options.json, name, result, patience)


if __name__ == "__main__":
    main()
