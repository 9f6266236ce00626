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
    from rlfr_vlm.flow.fit import FIELD_FOLDER, FitConfig
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
    trainer.save_model(args.output_dir)
    if trainer.accelerator.is_main_process:
        print_held_out(metrics)
        if trainer.too_long:
            print(f"left out {trainer.too_long} row reads longer than max_length {args.max_length} tokens")
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
    from rlfr_vlm.latents import find_language_tower
    from rlfr_vlm.policy import load_policy
    from rlfr_vlm.trainer.callbacks import MetricsFile, ProgressLine, StopOnInterrupt, quiet

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


def make_fit_trainer(
    policy: Any, processing_class: Any, spec: Any, args: Any, dataset: Any, callbacks: list[Any]
) -> Any:
    """Split off the held-out rows, measure statistics if asked, and build the trainer."""
    from rlfr_vlm.data.encode import encode_examples
    from rlfr_vlm.flow.fit import STATISTICS_ROWS, FlowFitTrainer, measure_statistics

    held_out = min(args.eval_rows, round(args.eval_fraction * len(dataset)))
    if not 0 < held_out < len(dataset):
        raise UserError(
            f"{len(dataset)} rows with eval_fraction {args.eval_fraction} leave {held_out} held-out and "
            f"{len(dataset) - held_out} training rows; both must exist. Change eval_fraction or take more rows."
        )
    order = range(len(dataset))
    training, evaluation = dataset.select(order[:-held_out]), dataset.select(order[-held_out:])
    if args.flow_normalise:
        size = args.per_device_train_batch_size
        rows = range(min(STATISTICS_ROWS, len(training)))
        policy.eval()
        batches = [encode_examples(processing_class, [training[i] for i in rows[s : s + size]]) for s in rows[::size]]
        mean, std = measure_statistics(policy, batches, spec)
        spec.latent_mean, spec.latent_std = tuple(mean.tolist()), tuple(std.tolist())
    return FlowFitTrainer(
        policy=policy,
        processing_class=processing_class,
        spec=spec,
        args=args,
        train_dataset=training,
        eval_dataset=evaluation,
        callbacks=callbacks,
    )
