"""`rlfr fit-flow`: fit a flow field to a policy's latents on expert responses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError

SUMMARY = "fit a flow field to a frozen policy's latents on expert responses"


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options
    from rlfr_vlm.options import FitOptions, RunOptions

    return describe_options(
        "rlfr fit-flow --config FILE.yaml [--key value ...] [--resume CHECKPOINT|auto]",
        "Fit a field. The dataset needs the columns prompt and response (and images, if any).",
        RunOptions,
        FitOptions,
        inherited="Every setting of transformers' TrainingArguments is accepted as well, such as --output_dir, "
        "--learning_rate, --num_train_epochs, --per_device_train_batch_size, --gradient_accumulation_steps.",
    )


def run(arguments: Sequence[str]) -> int:
    """Parse, fit, report the held-out loss, save. Returns the exit code."""
    from rlfr_vlm.commands.train import find_checkpoint
    from rlfr_vlm.config import parse_config, take_option, write_resolved
    from rlfr_vlm.flow import FIELD_FOLDER
    from rlfr_vlm.flow.fit import FitConfig
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.terminal import calm

    calm()
    resume, rest = take_option(arguments, "--resume")
    options, args = parse_config((RunOptions, FitConfig), rest)
    trainer, interrupt = build_fit_trainer(options, args)
    if trainer.accelerator.is_main_process:
        write_resolved(args.output_dir, options, args)
    trainer.train(resume_from_checkpoint=find_checkpoint(resume, args.output_dir))
    if interrupt.interrupted:
        print(f"stopped; a checkpoint is in {args.output_dir}; go on with `--resume auto`")
        return 130
    metrics = trainer.evaluate()
    left_out = trainer.left_out_rows()
    trainer.save_model(args.output_dir)
    if trainer.accelerator.is_main_process:
        print_held_out(metrics)
        if left_out:
            print(f"left out {left_out} rows of more than max_length {args.max_length} tokens (each epoch counts)")
        print(f"field in {Path(args.output_dir) / FIELD_FOLDER}")
    return 0


def print_held_out(metrics: dict[str, float]) -> None:
    """The held-out report: overall, per layer, per bucket of t."""
    print(f"held-out loss {metrics['eval_loss']:.4f}, zero predictor {metrics['eval_zero_predictor_loss']:.4f}, "
          f"ratio {metrics['eval_ratio']:.3f}")  # fmt: skip
    for name, value in metrics.items():
        if name.startswith(("eval_loss_layer_", "eval_loss_t_")):
            print(f"  {name.removeprefix('eval_loss_').replace('_', ' '):<12} {value:.4f}")


def build_fit_trainer(options: Any, args: Any) -> tuple[Any, Any]:
    """The fit trainer for a configuration, and the callback that knows whether Ctrl-C was pressed."""
    from rlfr_vlm.data.load import load_rows
    from rlfr_vlm.flow import FlowSpec
    from rlfr_vlm.flow.fit import make_fit_trainer
    from rlfr_vlm.latents import find_language_tower
    from rlfr_vlm.policy import load_policy, refuse_data_parallel
    from rlfr_vlm.trainer.callbacks import MetricsFile, ProgressLine, StopOnInterrupt, quiet
    from rlfr_vlm.vision import find_vision_tower

    refuse_data_parallel(args)
    dataset = load_rows(
        options.dataset_name,
        split=options.dataset_split,
        columns=("prompt", "response"),
        limit=options.dataset_limit,
        seed=args.seed,
        revision=options.dataset_revision,
        system_prompt=options.system_prompt,
    )
    policy, processing_class = load_policy(options, trust_remote_code=False)
    if args.flow_image_context and find_vision_tower(policy) is None:
        raise UserError(f"{options.model_name_or_path} is a text-only policy. Set flow_image_context: false.")
    spec = FlowSpec.for_policy(
        find_language_tower(policy).config,
        options.model_name_or_path,
        args.flow_depth,
        args.flow_layers,
        context_mode=args.flow_context_mode,
        shift=args.flow_shift,
        image_context=args.flow_image_context,
        data=f"{options.dataset_name} ({options.dataset_split}, {len(dataset)} rows)",
    )
    interrupt = StopOnInterrupt()
    trainer = make_fit_trainer(
        policy, processing_class, spec, args, dataset,
        [interrupt, MetricsFile(args.output_dir), ProgressLine("fit flow")],
    )  # fmt: skip
    quiet(trainer)
    return trainer, interrupt
