"""`rlfr plan`: print the step counts, memory and hours of a training configuration before it runs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlfr_vlm.data.load import Rows
    from rlfr_vlm.options import RunOptions, ScriptArguments
    from rlfr_vlm.plan import MemoryEstimate
    from rlfr_vlm.prompt_lengths import PromptLengths
    from rlfr_vlm.steps import StepCounts
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

SUMMARY = "samples, updates, tokens and memory of a training configuration, before it runs"
ACHIEVED_TFLOPS = 150.0  # TFLOP/s of one GPU in training, a guess
GENERATED_PER_SECOND = 2500.0  # tokens/s of one GPU in generation, a guess
PROMPT_TOKENS = 1024  # of the longest prompt, where it can neither be measured nor is limited


def _parser() -> argparse.ArgumentParser:
    parser = options_parser("plan", SUMMARY)
    parser.usage = "rlfr plan --config FILE.yaml [options of plan] [--key value of `rlfr train` ...]"
    parser.add_argument("--processes", type=int, default=8, help="GPUs that train (default: %(default)s)")
    parser.add_argument("--sharding", default="zero2", help="none, zero1, zero2, zero3, fsdp2 (default: %(default)s)")
    parser.add_argument("--gpu-memory", type=float, default=80.0, help="GB of one GPU (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="rows of the training set; read from it when it can be")
    parser.add_argument(
        "--prompt-tokens",
        type=int,
        help="of the longest prompt (default: measured in a sample of the data, with the policy's processor; where "
        f"that cannot be read, max_prompt_tokens, else {PROMPT_TOKENS})",
    )
    parser.add_argument(
        "--tflops",
        type=float,
        default=ACHIEVED_TFLOPS,
        help="what one GPU achieves in training (default: %(default)s)",
    )
    parser.add_argument(
        "--generated-per-second",
        type=float,
        default=GENERATED_PER_SECOND,
        help="tokens that one GPU generates (default: %(default)s)",
    )
    return parser


def help_text() -> str:
    return _parser().format_help().rstrip()


def parsers() -> list[argparse.ArgumentParser]:
    return [_parser(), settings_parser()]


def settings_parser() -> argparse.ArgumentParser:
    """Return the parser of the settings of a training run, without the options of `rlfr train` itself."""
    from rlfr_vlm.config_file import parser_of
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    return parser_of((ScriptArguments, RLFRConfig))


def run(arguments: Sequence[str]) -> int:
    """Print the plan. Returns the exit code."""
    options, rest = _parser().parse_known_args(list(arguments))
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.meta_policy import policy_on_meta
    from rlfr_vlm.plan import SHARDING
    from rlfr_vlm.steps import count_steps

    silence_libraries()
    if options.sharding not in SHARDING:
        raise UserError(f"--sharding is {options.sharding!r}; choose one of {', '.join(SHARDING)}.")
    for name in ("processes", "gpu_memory", "tflops", "generated_per_second"):
        if getattr(options, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be above 0.")
    run_options, args = configuration(options.processes, rest)
    data = _read_data(run_options, only_local=options.rows is not None)
    rows = options.rows if options.rows is not None or data is None else len(data.indices)
    prompt = options.prompt_tokens or _longest_prompt(run_options, args, data)
    steps = count_steps(args, rows, prompt)
    _print_steps(steps, args, rows, prompt)
    if not run_options.model_name_or_path:
        print("memory: not estimated, because model_name_or_path is not set")
        return 0
    policy = policy_on_meta(run_options, freeze_vision=args.freeze_vision)
    memory, engine = _memory(policy, run_options, args, options, prompt)
    _print_memory(memory, engine, options)
    _print_hours(policy, steps, args, options)
    return 0


def configuration(processes: int, arguments: Sequence[str]) -> tuple["ScriptArguments", "RLFRConfig"]:
    """Parse the training configuration as if `processes` ranks ran, from which TRL derives the rollout sizes."""
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

    if not torch.cuda.is_available():
        arguments = [*arguments, "--use_cpu", "true"]
    options, args = parse_config((ScriptArguments, Planned), arguments)
    return options, args


def _read_data(options: "RunOptions", only_local: bool) -> "Rows | None":
    """Read the training set; None if no data is set, or with `only_local` none that is on this machine."""
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.data.source import is_made_here
    from rlfr_vlm.sources import sources_of

    names = [source.name for source in sources_of(options.dataset_name)]
    elsewhere = any(not is_made_here(name) and not Path(name).expanduser().exists() for name in names)
    if not options.dataset_name or (only_local and elsewhere):
        return None
    return read_rows(options, (), 0)


def _longest_prompt(options: "RunOptions", args: "RLFRConfig", data: "Rows | None") -> int:
    """Measure the longest prompt in a sample of the data, or assume it; print which, and why."""
    limit = options.max_prompt_tokens
    try:
        lengths = _measure(options, args, data)
    except UserError as error:
        assumed, origin = (limit, "max_prompt_tokens") if limit else (PROMPT_TOKENS, "a guess")
        reason = str(error).rstrip(".")
        print(f"prompts       {assumed} tokens assumed ({origin}): {reason}. --prompt-tokens sets another number")
        return assumed
    longest = min(lengths.longest, limit or lengths.longest)
    which = "all rows" if lengths.measured == lengths.rows else f"{lengths.measured:,} of {lengths.rows:,} rows"
    cut = f", above max_prompt_tokens {limit}" if longest < lengths.longest else ""
    print(f"prompts       longest {lengths.longest} tokens, mean {lengths.mean:.0f}, measured in {which}{cut}")
    return longest


def _measure(options: "RunOptions", args: "RLFRConfig", data: "Rows | None") -> "PromptLengths":
    """Measure prompts with the policy's processor, which is not fetched from the hub.

    Raises:
        UserError: data or processor are missing, or cannot be read.
    """
    from rlfr_vlm.policy import load_processor
    from rlfr_vlm.prompt_lengths import measure_prompts

    if data is None or not options.model_name_or_path:
        raise UserError(f"no {'data' if data is None else 'policy'} to measure with")
    processing_class = load_processor(
        options.model_name_or_path,
        options,
        revision=options.model_revision,
        trust_remote_code=args.trust_remote_code,
        local_files_only=True,
    )
    data.suit(processing_class)
    return measure_prompts(data, processing_class)


def _memory(
    policy: "PreTrainedModel", run_options: "RunOptions", args: "RLFRConfig", options: argparse.Namespace, prompt: int
) -> tuple["MemoryEstimate", float]:
    """Estimate the bytes of one GPU in an update, and those of vLLM while it generates."""
    from rlfr_vlm.flow.storage import SPEC_FILE, read_spec
    from rlfr_vlm.meta_policy import assumed_spec
    from rlfr_vlm.plan import BFLOAT16, FLOAT32, MemorySettings, estimate_memory

    spec = None
    if args.uses_flow:
        if args.flow_path and Path(args.flow_path).is_dir():
            spec = read_spec(Path(args.flow_path) / SPEC_FILE)
        else:
            spec = assumed_spec(policy)
    engine = options.gpu_memory * 1e9 * args.vllm_gpu_memory_utilization if args.vllm_mode == "colocate" else 0.0
    engine = engine if args.use_vllm else 0.0
    positions = prompt + (args.max_completion_length or 0)
    rows = args.per_device_train_batch_size
    if args.micro_batch_tokens:
        rows = min(rows, max(1, args.micro_batch_tokens // positions))
    settings = MemorySettings(
        processes=options.processes,
        sharding=options.sharding,
        weight_bytes=FLOAT32 if run_options.dtype == "float32" else BFLOAT16,
        bf16=bool(args.bf16),
        checkpointing=args.gradient_checkpointing,
        rows=rows,
        positions=positions,
        response=args.max_completion_length or 0,
        flow=spec,
        flow_repeats=args.flow_noise_repeats,
        engine=0.0 if args.vllm_enable_sleep_mode else engine,
        four_bits=run_options.load_in_4bit,
    )
    return estimate_memory(policy, settings), engine


def _print_steps(steps: "StepCounts", args: "RLFRConfig", rows: int | None, prompt: int) -> None:
    from rlfr_vlm.steps import left_out_line

    print(f"rollout       {steps.prompts} prompts x {args.num_generations} responses = {steps.responses}")
    print(
        f"updates       {steps.updates} a rollout, of {steps.per_update} responses each: "
        f"{args.per_device_train_batch_size} a process x {steps.micro_batches} accumulation steps x "
        f"{args.world_size} processes"
    )
    print(
        f"tokens        at most {steps.tokens:,} a rollout (prompts of {prompt}, responses of "
        f"{args.max_completion_length})"
    )
    if steps.total is None:
        print("total         unknown: name the data, or give --rows or --max_steps")
    else:
        source = "max_steps" if args.max_steps > 0 else f"{rows} rows x {args.num_train_epochs:g} epochs"
        print(f"total         {steps.total:,} updates ({source})")
    if rows is not None and rows < steps.prompts:
        print(
            f"              no update: {rows} rows do not fill a rollout of {steps.prompts} prompts; "
            "`rlfr train` refuses to train nothing"
        )
    elif rows is not None and (line := left_out_line(args, rows)):
        print(f"              {line}")


def _print_memory(memory: "MemoryEstimate", engine: float, options: argparse.Namespace) -> None:
    print(f"memory of one GPU in an update, GB, with {options.processes} processes and sharding {options.sharding}:")
    for name, size in vars(memory).items():
        print(f"  {name.replace('_', ' '):<12} {size / 1e9:8.2f}")
    fits = "fits" if memory.total < 0.92 * options.gpu_memory * 1e9 else "does NOT fit"
    print(f"  {'all':<12} {memory.total / 1e9:8.2f} of {options.gpu_memory:g}: {fits} (8 % are left for fragments)")
    if engine and not memory.engine:
        print(f"  vLLM takes {engine / 1e9:.2f} while it generates, and sleeps in updates")


def _print_hours(
    policy: "PreTrainedModel", steps: "StepCounts", args: "RLFRConfig", options: argparse.Namespace
) -> None:
    """Count 6 FLOPs per parameter and token for the update (8 with checkpointing) and 2 for the old log-probs."""
    if steps.total is None or steps.tokens is None:
        return
    rollouts = steps.total / steps.updates
    count = sum(parameter.numel() for parameter in policy.parameters())
    factor = args.num_iterations * (8 if args.gradient_checkpointing else 6) + 2
    train = rollouts * steps.tokens * count * factor / (options.tflops * 1e12 * options.processes)
    generated = rollouts * steps.responses * (args.max_completion_length or 0)
    generate = generated / (options.generated_per_second * options.processes)
    print(
        f"hours         at most {(train + generate) / 3600:.1f}, taking {options.tflops:g} TFLOP/s a GPU in training "
        f"and {options.generated_per_second:g} tokens/s a GPU in generation: guesses; set --tflops and "
        "--generated-per-second to what yours achieve"
    )
