"""`rlfr fit-flow`: fit a flow field to a policy's latents on expert responses, or on its own ones."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.commands.run_trainer import parser_with_resume, run_trainer, training_dataset
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RunOptions

if TYPE_CHECKING:
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer

SUMMARY = "fit a flow field to a frozen policy's latents, on expert responses or on its own"


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options
    from rlfr_vlm.flow_options import FitOptions

    return describe_options(
        "rlfr fit-flow --config FILE.yaml [--key value ...] [--resume CHECKPOINT|auto]",
        "Fit a field. The dataset needs the columns prompt and response (and images, if any).",
        RunOptions,
        FitOptions,
        inherited="Every setting of transformers' TrainingArguments is accepted as well, such as --output_dir, "
        "--learning_rate, --num_train_epochs, --per_device_train_batch_size, --gradient_accumulation_steps.",
    )


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig

    return [parser_with_resume((RunOptions, FlowFitConfig))]


def run(arguments: Sequence[str]) -> int:
    """Fit the field, report the held-out loss, save. Returns the exit code."""
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig

    return run_trainer(arguments, (RunOptions, FlowFitConfig), build_fit_trainer, _report_and_save)


def _report_and_save(trainer: "FlowFitTrainer") -> None:
    from rlfr_vlm.flow import FIELD_FOLDER

    args = trainer.args
    metrics = trainer.evaluate()
    skipped = trainer.left_out_rows()
    trainer.save_model(args.output_dir)
    if trainer.accelerator.is_main_process:
        print_held_out(metrics)
        if skipped:
            print(f"left out {skipped} rows of more than max_length {args.max_length} tokens (each epoch counts)")
        print(f"field in {Path(args.output_dir) / FIELD_FOLDER}")


def print_held_out(metrics: dict[str, float]) -> None:
    """Print the held-out loss: overall, per layer, per bucket of t."""
    loss, zero, ratio = (metrics[f"eval_{name}"] for name in ("loss", "zero_predictor_loss", "ratio"))
    print(f"held-out loss {loss:.4f}, zero predictor {zero:.4f}, ratio {ratio:.3f}")
    for name, value in metrics.items():
        if name.startswith(("eval_loss_layer_", "eval_loss_t_")):
            print(f"  {name.removeprefix('eval_loss_').replace('_', ' '):<12} {value:.4f}")


def refuse_weights(options: RunOptions) -> None:
    """Refuse a mixture with weights: a row that repeats could be fitted on and held out.

    Raises:
        UserError: a source has a weight.
    """
    from rlfr_vlm.sources import sources_of

    if weighted := [source.name for source in sources_of(options.dataset_name) if source.weight is not None]:
        raise UserError(
            f"The source {weighted[0]} has a weight, and a fit takes each row once an epoch: a row that repeats could "
            "be fitted on and held out. Leave the weights out."
        )


def build_fit_trainer(options: RunOptions, args: "FlowFitConfig") -> "FlowFitTrainer":
    """Build the fit trainer for a configuration."""
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.policy import load_policy, refuse_data_parallel
    from rlfr_vlm.sources import joined
    from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer, accepted_rows, spec_for
    from rlfr_vlm.trainer.records.callbacks import MetricsFile, ProgressLine

    refuse_data_parallel(args)
    refuse_weights(options)
    # Read before the policy: a wrong data set name then fails before a large policy is loaded.
    rows = read_rows(options, ("prompt", "response"), args.seed)
    policy, processing_class = load_policy(options, trust_remote_code=False)
    dataset = training_dataset(rows, options, processing_class)
    kept = accepted_rows(dataset, args)
    if len(kept) < len(dataset):
        print(f"{len(kept)} of {len(dataset)} rows are fitted on, by their verdict")
    data = f"{joined(options.dataset_name)} ({options.dataset_split}, {len(kept)} rows, {args.flow_accept})"
    return FlowFitTrainer(
        policy,
        args,
        dataset,
        processing_class=processing_class,
        spec=spec_for(policy, args, options.model_name_or_path, data),
        callbacks=[MetricsFile(args.output_dir), ProgressLine("fit flow")],
    )
