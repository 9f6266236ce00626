"""What sharing a group's prompt saves: time, memory and FLOPs of the passes and of a whole step, against TRL's GRPO.

    .venv/bin/python benchmarks/speed/prefix.py [--cases 1024/256 ...] [--rounds 3] [--steps 1024/256] [--json FILE]

The policy is Qwen2.5-VL's architecture with 22 million weights in the language tower, large enough that a CPU's time
is matrix products. A micro-batch holds one group: 8 responses to a prompt that is mostly an image. The tower of the
images is frozen; a pass of ours runs it once. In a run, features are kept from generation on, so that whole steps run
it once. What is compared takes turns. Memory is live bytes of tensors. Neither depends on the weights. `--size 3b` is
Qwen2.5-VL-3B in bfloat16 on a GPU, with gradient checkpointing; FLOPs there are without the LM head's, which runs in
Triton. `tiny` is the same code on a CPU, with sizes that measure nothing.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import step
import torch
from measuring import Patience, add_options, peak_bytes, same_round_ratio, table, write_results
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from workloads import GPU_SIZES, SHAPES, Shape, VisionShape, Workload, large

from rlfr_vlm.trainer.trl_seams import LOGPROB_IMAGE_KEYS, Batch

if TYPE_CHECKING:
    from trl import GRPOTrainer

    from rlfr_vlm.files import JsonObject

GROUP = 8
CASES = {"320/128": 16, "1024/256": 31, "1024/1024": 31, "64/512": 5}  # prompt / response: image tokens along a side
SHAPE = Shape(
    512, 6, 8, 4, 1536, 4096, tied=True, field_depth=2,
    vision=VisionShape(depth=4, hidden_size=320, intermediate_size=856, num_heads=4, fullatt_block_indexes=(1, 3)),
)  # fmt: skip
SIZES = {"medium": SHAPE, **SHAPES}
PASSES = ("old log-probs", "update")


def workload(case: str, size: str = "medium") -> Workload:
    """Policy and rows of a case; a rollout is one group and one update."""
    prompt, response = map(int, case.split("/"))
    on_gpu = size in GPU_SIZES
    shape = replace(SIZES[size], prompt=prompt, response=response, image=CASES[case])
    work = large(size, shape, "cuda" if on_gpu else "cpu")
    arguments = work.arguments | {
        "per_device_train_batch_size": GROUP,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 1,
        "gradient_checkpointing": on_gpu,
        "learning_rate": 1e-4,
    }
    return replace(work, arguments=arguments)


def rollout(trainer: "GRPOTrainer", work: Workload, response: int) -> Batch:
    """A batch of one group as a rollout would return it, with random responses of full length."""
    from rlfr_vlm.data.encode import encode_prompts

    row = work.rows[0]
    prompts = encode_prompts(work.processor, [row] * GROUP)
    ids = torch.randint(10, 200, (GROUP, response), generator=torch.Generator().manual_seed(0))
    kinds = prompts.extra["mm_token_type_ids"]
    batch: Batch = {
        "prompt_ids": prompts.input_ids,
        "prompt_mask": prompts.attention_mask,
        "completion_ids": ids,
        "completion_mask": torch.ones_like(ids),
        **{key: value for key, value in prompts.extra.items() if key in LOGPROB_IMAGE_KEYS},
        "mm_token_type_ids": torch.cat([kinds, torch.zeros_like(ids)], dim=1),
        "num_images": [len(row["images"])] * GROUP,
        "advantages": torch.linspace(-1, 1, GROUP),
        "num_items_in_batch": torch.tensor(float(ids.numel())),
        "keep": torch.ones(GROUP, dtype=torch.bool),
    }
    device = trainer.accelerator.device
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def passes(trainer: "GRPOTrainer", batch: Batch) -> dict[str, Callable[[], object]]:
    """The work of the two passes of a trainer."""
    inputs = (
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
        batch["completion_ids"].shape[1],
    )
    images = {key: batch[key] for key in LOGPROB_IMAGE_KEYS if key in batch}

    def old_log_probs() -> Tensor:
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(trainer.model, *inputs, batch_size=GROUP, **images)[0]

    def update() -> None:
        loss: Tensor = trainer._compute_loss(trainer.model, dict(batch))
        loss.backward()
        trainer.model.zero_grad()

    return {"old log-probs": old_log_probs, "update": update}


def trainer_of(kind: str, folder: str, work: Workload, updates: int = 1) -> "GRPOTrainer":
    """TRL's trainer (`trl`), or ours for a method, with shared prompts."""
    return step.build(kind, folder, work, updates)


def measure_case(case: str, rounds: int, patience: Patience, size: str = "medium") -> "JsonObject":
    """Seconds, FLOPs and live bytes of both passes, row by row and with shared prompts."""
    work = workload(case, size)
    works: dict[str, dict[str, Callable[[], object]]] = {name: {} for name in PASSES}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("trl", "rlvr"):
            trainer = trainer_of(kind, folder, work)
            trainer.model.train()
            if trainer.args.gradient_checkpointing:  # which the training loop would turn on
                trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
            trainer.current_gradient_accumulation_steps = 1  # set by the training loop
            trainer.rollout_log = None  # rows of the batch are no rollout's
            both = passes(trainer, rollout(trainer, work, int(case.split("/")[1])))
            if kind == "rlvr":  # the first pass of a run is compared with row-wise ones
                both["old log-probs"]()
                if not trainer.sharing.is_on:
                    sys.exit(f"prefix: {case}: prompts are not shared after the comparison of the first pass")
            for name, pass_ in both.items():
                works[name][kind] = pass_
        result: JsonObject = {}
        for name, both in works.items():
            counted = {kind: costs(pass_) for kind, pass_ in both.items()}  # also the run that is not timed
            seconds: dict[str, list[float]] = {kind: [] for kind in both}
            for _ in range(rounds):
                for kind, pass_ in both.items():
                    seconds[kind].append(patience.run(pass_)[1])
            result[name] = {
                "seconds": seconds,
                "times_faster": same_round_ratio(seconds["trl"], seconds["rlvr"]),
                "fewer_flops": counted["trl"][0] / counted["rlvr"][0],
                "memory": counted["rlvr"][1] / counted["trl"][1],
            }
            print(f"{case} {name}: {result[name]}", flush=True)
    return result


def costs(work: Callable[[], object]) -> tuple[int, int]:
    """FLOPs of matrix products and attention, as torch counts them, and peak memory in bytes."""
    with FlopCounterMode(display=False) as counter:
        peak = peak_bytes(work)
    return counter.get_total_flops(), peak


def measure_step(case: str, rounds: int, patience: Patience, size: str = "medium") -> "JsonObject":
    """Seconds of whole steps with transformers' generation, in turn, and their parts.

    A trainer makes two steps; the comparison of the first pass with a row-wise one is in the first of them.
    """
    work, kinds = workload(case, size), ("trl", "rlfr")
    seconds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        for kind in kinds:

            def run(kind: str = kind) -> dict[str, float]:
                with tempfile.TemporaryDirectory() as folder:
                    return step.train(trainer_of(kind, folder, work, 2), 2)

            seconds[kind].append(patience.run(run)[0])
            print(f"{case} step, round {number + 1}, {kind}: {seconds[kind][-1]}", flush=True)
            step.release()
    totals = {kind: [found["total"] for found in rows] for kind, rows in seconds.items()}
    return {
        "seconds": totals,
        "parts": seconds,
        "over_trl": {kind: same_round_ratio(totals[kind], totals["trl"]) for kind in kinds},
    }


def report_passes(result: "JsonObject") -> str:
    """Format the table of the passes of each case."""
    rows = [
        (case, name, f"{numbers['times_faster']:.2f}", f"{numbers['fewer_flops']:.2f}", f"{numbers['memory']:.2f}")
        for case, both in result.items()
        for name, numbers in both.items()
    ]
    return table(("prompt / response", "pass", "times faster", "times fewer FLOPs", "share of memory"), rows)


def report_steps(result: "JsonObject") -> str:
    """Format the table of the whole steps of each case."""
    rows = [
        (case, kind, f"{min(numbers['seconds'][kind]):.1f}", f"{ratio:.2f}")
        for case, numbers in result.items()
        for kind, ratio in numbers["over_trl"].items()
    ]
    return table(("prompt / response", "whole step", "s, minimum", "over TRL"), rows)


def main() -> None:
    """Measure all cases."""
    from rlfr_vlm.library_output import silence_libraries

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES), help="prompt / response tokens")
    parser.add_argument("--size", choices=SIZES, default="medium", help="the policy (default: %(default)s)")
    parser.add_argument("--steps", nargs="*", choices=CASES, default=["1024/256"], help="cases of whole steps")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    add_options(parser)
    options = parser.parse_args()
    if options.size in GPU_SIZES and not torch.cuda.is_available():
        sys.exit(f"prefix: size {options.size} needs a CUDA GPU, and there is none here; --size medium runs on a CPU")
    silence_libraries()
    for cases, name, measure, report in (
        (options.cases, "prefix", measure_case, report_passes),
        (options.steps, "prefix_steps", measure_step, report_steps),
    ):
        if cases:
            patience = Patience(options.patience)
            result = {case: measure(case, options.rounds, patience, options.size) for case in cases}
            print("\n" + report(result))
            write_results(options.json, name, result, patience)


if __name__ == "__main__":
    main()
