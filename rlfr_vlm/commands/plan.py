"""`rlfr plan`: what a training configuration means, before it runs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.plan import Memory, Steps

SUMMARY = "samples, updates, tokens and memory of a training configuration, before it runs"
# How fast one GPU is taken to be for the hours; measured values belong here instead of ours.
ACHIEVED_TFLOPS = 150.0
GENERATED_PER_SECOND = 2500.0


def _parser() -> argparse.ArgumentParser:
    parser = options_parser("plan", SUMMARY)
    parser.usage = "rlfr plan --config FILE.yaml [options of plan] [--key value of `rlfr train` ...]"
    parser.add_argument("--processes", type=int, default=8, help="GPUs that train (default: %(default)s)")
    parser.add_argument("--sharding", default="zero2", help="none, zero1, zero2, zero3, fsdp2 (default: %(default)s)")
    parser.add_argument("--gpu-memory", type=float, default=80.0, help="GB of one GPU (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="rows of the training set; read from it when it can be")
    parser.add_argument(
        "--prompt-tokens", type=int, help="of the longest prompt (default: max_prompt_tokens, else 1024)"
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=ACHIEVED_TFLOPS,
        help="what one GPU achieves in training (default: %(default)s)",
    )
    parser.add_argument(
        "--generated-per-second", type=float, default=GENERATED_PER_SECOND,
        help="tokens that one GPU generates (default: %(default)s)",
    )  # fmt: skip
    return parser


def help_text() -> str:
    return _parser().format_help().rstrip()


def run(arguments: Sequence[str]) -> int:
    """Print the plan. Returns the exit code."""
    given, rest = _parser().parse_known_args(list(arguments))
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.plan import SHARDING, count_steps

    silence_libraries()
    if given.sharding not in SHARDING:
        raise UserError(f"--sharding is {given.sharding!r}; choose one of {', '.join(SHARDING)}.")
    for name in ("processes", "gpu_memory", "tflops", "generated_per_second"):
        if getattr(given, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(given, name)}; it must be above 0.")
    options, args = _configuration(given.processes, rest)
    prompt = given.prompt_tokens or options.max_prompt_tokens or 1024
    rows = given.rows if given.rows is not None else _count_rows(options)
    steps = count_steps(args, rows, prompt)
    _print_steps(steps, args, rows, prompt)
    policy = _policy(options, args)
    if policy is None:
        print("memory: not estimated, because model_name_or_path is not set")
        return 0
    memory, engine = _memory(policy, options, args, given, prompt)
    _print_memory(memory, engine, given)
    _print_hours(policy, steps, args, given, prompt)
    return 0


def _configuration(processes: int, rest: Sequence[str]) -> tuple["RunOptions", Any]:
    """The configuration as it is with so many processes; TRL itself derives its sizes."""
    import torch

    from rlfr_vlm.config_file import parse_config
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    @dataclass
    class Planned(RLFRConfig):
        output_dir: str | None = field(default="plan")

        @property
        def world_size(self) -> int:
            return processes

    own = list(rest) if torch.cuda.is_available() else [*rest, "--use_cpu", "true"]
    return parse_config((ScriptArguments, Planned), own)


def _count_rows(options: "RunOptions") -> int | None:
    from rlfr_vlm.data.load import read_rows

    if not options.dataset_name:
        return None
    return len(read_rows(options, (), 0).indices)


def _policy(options: "RunOptions", args: Any) -> Any:
    """The policy without weights, what does not train marked so; None when none is named."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from rlfr_vlm.models.vision import freeze_vision_tower
    from rlfr_vlm.trainer.lora import lora_config

    if not options.model_name_or_path:
        return None
    try:
        config = AutoConfig.from_pretrained(options.model_name_or_path, revision=options.model_revision)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["unknown"])[0]
        raise UserError(f"Cannot read the model's configuration: {reason} Give a model folder or a hub id.") from None
    cls = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with torch.device("meta"):
        policy = cls.from_config(config, dtype=torch.float32)
        if (adapter := lora_config(policy, options)) is not None:
            from peft import get_peft_model

            policy = get_peft_model(policy, adapter)
    if args.freeze_vision:
        freeze_vision_tower(policy)
    return policy


def _memory(policy: Any, options: "RunOptions", args: Any, given: Any, prompt: int) -> tuple["Memory", float]:
    """Bytes of one GPU in an update, and what vLLM takes while it generates."""
    from rlfr_vlm.flow import FlowSpec
    from rlfr_vlm.flow.storage import SPEC_FILE, read_spec
    from rlfr_vlm.models.towers import find_language_tower
    from rlfr_vlm.plan import BFLOAT16, FLOAT32, Setting, estimate_memory

    spec = None
    if args.uses_flow:
        config = find_language_tower(policy).config
        depth = 4 if config.hidden_size < 3000 else 6
        known = args.flow_path and Path(args.flow_path).is_dir()
        spec = (
            read_spec(Path(args.flow_path) / SPEC_FILE)
            if known
            else FlowSpec.for_policy(config, "plan", depth, (0.25, 0.5, 0.75))
        )
    engine = given.gpu_memory * 1e9 * args.vllm_gpu_memory_utilization if args.vllm_mode == "colocate" else 0.0
    engine = engine if args.use_vllm else 0.0
    setting = Setting(
        processes=given.processes, sharding=given.sharding, bf16=args.bf16,
        weight_bytes=FLOAT32 if options.dtype == "float32" else BFLOAT16, checkpointing=args.gradient_checkpointing,
        rows=args.per_device_train_batch_size, positions=prompt + (args.max_completion_length or 0), flow=spec,
        response=args.max_completion_length or 0, flow_repeats=args.flow_noise_repeats,
        engine=0.0 if args.vllm_enable_sleep_mode else engine,
    )  # fmt: skip
    return estimate_memory(policy, setting), engine


def _print_steps(steps: "Steps", args: Any, rows: int | None, prompt: int) -> None:
    print(f"rollout       {steps.prompts} prompts x {args.num_generations} responses = {steps.responses}")
    print(f"updates       {steps.updates} a rollout, of {steps.per_update} responses each: "
          f"{args.per_device_train_batch_size} a process x {steps.micro_batches} accumulation steps x "
          f"{args.world_size} processes")  # fmt: skip
    print(f"tokens        at most {steps.tokens:,} a rollout (prompts of {prompt}, responses of "
          f"{args.max_completion_length})")  # fmt: skip
    source = "max_steps" if args.max_steps > 0 else f"{rows} rows x {args.num_train_epochs:g} epochs"
    print(f"total         {steps.total:,} updates ({source})" if steps.total is not None else
          "total         unknown: name the data, or give --rows or --max_steps")  # fmt: skip


def _print_memory(memory: "Memory", engine: float, given: Any) -> None:
    print(f"memory of one GPU in an update, GB, with {given.processes} processes and sharding {given.sharding}:")
    for name, size in vars(memory).items():
        print(f"  {name.replace('_', ' '):<12} {size / 1e9:8.2f}")
    fits = "fits" if memory.total < 0.92 * given.gpu_memory * 1e9 else "does NOT fit"
    print(f"  {'all':<12} {memory.total / 1e9:8.2f} of {given.gpu_memory:g}: {fits} (8 % are left for fragments)")
    if engine and not memory.engine:
        print(f"  vLLM takes {engine / 1e9:.2f} while it generates, and sleeps in updates")


def _print_hours(policy: Any, steps: "Steps", args: Any, given: Any, prompt: int) -> None:
    """6 FLOPs a parameter and token for the update (8 with checkpointing), 2 for the old log-probs."""
    if steps.total is None or steps.tokens is None:
        return
    rollouts = steps.total / steps.updates
    count = sum(parameter.numel() for parameter in policy.parameters())
    factor = args.num_iterations * (8 if args.gradient_checkpointing else 6) + 2
    train = rollouts * steps.tokens * count * factor / (given.tflops * 1e12 * given.processes)
    written = rollouts * steps.responses * (args.max_completion_length or 0)
    generate = written / (given.generated_per_second * given.processes)
    print(
        f"hours         at most {(train + generate) / 3600:.1f}, taking {given.tflops:g} TFLOP/s a GPU in training "
        f"and {given.generated_per_second:g} tokens/s a GPU in generation: guesses; set --tflops and "
        "--generated-per-second to what yours achieve"
    )
